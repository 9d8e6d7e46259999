import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { appendSeed, cpioArchive, seedArchive } from '../../../src/image/cpio.ts';
import { initrdArchive } from '../../../src/image/initrd.ts';

interface Member {
  readonly path: string;
  readonly mode: number;
  readonly content: Buffer;
  readonly device: readonly [number, number];
}

/** Reads archives as the kernel does: one after another, zeros between them skipped. */
function membersOf(archive: Buffer): Member[] {
  const members: Member[] = [];
  for (let at = 0; at < archive.length;) {
    if (archive[at] === 0) {
      at += 4;
      continue;
    }
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number): number =>
      parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const path = archive.toString('utf8', at + 110, at + 110 + nameSize - 1);
    const start = at + Math.ceil((110 + nameSize) / 4) * 4;
    if (path !== 'TRAILER!!!') {
      const content = archive.subarray(start, start + size);
      members.push({ path, mode, content, device: [field(9), field(10)] });
    }
    at = start + Math.ceil(size / 4) * 4;
  }
  return members;
}

describe('cpioArchive', () => {
  test('writes folders, files, links and devices that read back', () => {
    const archive = cpioArchive([
      { type: 'folder', path: 'bin' },
      { type: 'file', path: 'bin/tool', mode: 0o755, content: 'abcde' },
      { type: 'link', path: 'bin/sh', target: 'tool' },
      { type: 'device', path: 'console', major: 5, minor: 1 },
    ]);
    expect(membersOf(archive)).toEqual([
      { path: 'bin', mode: 0o040755, content: Buffer.alloc(0), device: [0, 0] },
      { path: 'bin/tool', mode: 0o100755, content: Buffer.from('abcde'), device: [0, 0] },
      { path: 'bin/sh', mode: 0o120777, content: Buffer.from('tool'), device: [0, 0] },
      { path: 'console', mode: 0o020600, content: Buffer.alloc(0), device: [5, 1] },
    ]);
  });

  test.each([0, 1, 2, 3, 4, 511, 512, 513])('stays aligned after a file of %i bytes', (size) => {
    const archive = cpioArchive([
      { type: 'file', path: 'first', content: Buffer.alloc(size, 0x37) },
      { type: 'file', path: 'second', content: 'x' },
    ]);
    expect(archive.length % 512).toBe(0);
    const members = membersOf(archive);
    expect(members.map(({ path, content }) => [path, content.length])).toEqual([
      ['first', size],
      ['second', 1],
    ]);
  });

  test('gives equal bytes for equal entries', () => {
    const entries = [{ type: 'file', path: 'a', content: 'b' }] as const;
    expect(cpioArchive(entries).equals(cpioArchive(entries))).toBe(true);
  });

  test('keeps names of more than one byte a letter', () => {
    expect(membersOf(cpioArchive([{ type: 'file', path: 'größe', content: '' }]))[0]?.path).toBe('größe');
  });

  test.each(['/etc/passwd', '../outside', 'a/../../b'])('refuses the path %s', (path) => {
    expect(() => cpioArchive([{ type: 'file', path, content: '' }])).toThrow(RangeError);
  });
});

describe('the seed', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'zfsdev-cpio-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('holds its files for root alone, bytes unchanged', () => {
    const hostid = Uint8Array.of(0, 255, 10, 128);
    const members = membersOf(
      seedArchive(
        new Map<string, string | Uint8Array>([
          ['hostname', 'zfs-test\n'],
          ['hostid', hostid],
        ]),
      ),
    );
    expect(members.map(({ path, mode }) => [path, mode])).toEqual([
      ['zfsdev-seed', 0o040700],
      ['zfsdev-seed/hostname', 0o100600],
      ['zfsdev-seed/hostid', 0o100600],
    ]);
    expect(members[2]?.content).toEqual(Buffer.from(hostid));
  });

  test('is appended to the initrd, in a file of the owner alone', async () => {
    const modules = new Map([
      ['10-virtio_blk.ko', Buffer.from('one')],
      ['11-failover.ko', Buffer.from('two')],
    ]);
    const base = initrdArchive({ init: Buffer.from('#!'), busybox: Buffer.from('elf'), modules });
    const [from, target] = [join(folder, 'base'), join(folder, 'initrd')];
    await writeFile(from, base);
    await appendSeed(from, target, new Map([['pool.conf', 'POOL_NAME=testpool\n']]));

    const written = await readFile(target);
    expect(written.subarray(0, base.length).equals(base)).toBe(true);
    const paths = membersOf(written).map(({ path }) => path);
    expect(paths).toEqual(
      expect.arrayContaining(['init', 'bin/busybox', 'bin/sh', 'dev/console', 'modules/10-virtio_blk.ko']),
    );
    expect(paths.slice(-2)).toEqual(['zfsdev-seed', 'zfsdev-seed/pool.conf']);
    expect((await stat(target)).mode & 0o777).toBe(0o600);
  });

  test('says which image is damaged when there is no initrd', async () => {
    await expect(appendSeed(join(folder, 'none'), join(folder, 'x'), new Map())).rejects.toMatchObject({
      reason: 'files',
      hint: expect.stringContaining('zfsdev image list') as string,
    });
  });
});
