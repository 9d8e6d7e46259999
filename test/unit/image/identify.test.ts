import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { hasPartitionTable, refuseOther } from '../../../src/image/identify.ts';

function refusal(start: Buffer, location: string): Failure {
  try {
    refuseOther(start, location);
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('what is no disk is refused by its first bytes', () => {
  test('a packed file with the commands to type', () => {
    const found = refusal(gzipSync('x'), '/srv/my image.raw.gz');
    expect(found.message).toContain('compressed with gzip');
    expect(found.hint).toBe("gunzip '/srv/my image.raw.gz' && zfsdev image pull '/srv/my image.raw'");
  });

  test('one of the network has to be fetched by hand first', () => {
    const found = refusal(Buffer.from('fd377a585a0000', 'hex'), 'https://h/a/disk.qcow2.xz?x=1');
    expect(found.hint).toBe(
      "curl -LO 'https://h/a/disk.qcow2.xz?x=1' && unxz disk.qcow2.xz && zfsdev image pull disk.qcow2",
    );
  });

  test.each([
    ['<!DOCTYPE html><html>', 'a web page'],
    ['\n<html lang="en">', 'a web page'],
    ['KDMV\x01', 'a disk of VMware'],
    ['vhdxfile', 'a disk of Hyper-V'],
  ])('%j is %s', (start, what) => {
    expect(refusal(Buffer.from(start), 'https://h/x').message).toContain(what);
  });

  test('a qcow2 and a raw disk pass', () => {
    refuseOther(Buffer.from('QFI\xfb', 'latin1'), '/x');
    refuseOther(Buffer.alloc(512), '/x');
  });
});

test('a disk that boots has a table of partitions', () => {
  const mbr = Buffer.alloc(512);
  mbr.writeUInt16BE(0x55aa, 510);
  const gpt = Buffer.concat([Buffer.alloc(512), Buffer.from('EFI PART')]);
  expect([mbr, gpt, Buffer.alloc(8192), Buffer.from('short')].map(hasPartitionTable)).toEqual([
    true,
    true,
    false,
    false,
  ]);
});
