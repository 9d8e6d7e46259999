import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { surveyUsage, type MachineUsage } from '../../../src/storage/usage.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { header } from '../../support/qcow2.ts';
import { shell } from '../../support/zfsdev.ts';

let ctx: TestContext;
let bad: string;

beforeEach(async () => {
  ctx = await testContext();
  bad = (await stoppedInstance(ctx.paths, 'bad')).disk;
  await writeFile((await stoppedInstance(ctx.paths, 'good')).disk, header(1024));
});
afterEach(() => ctx.remove());

/** The bad one; the good one has to be whole whatever the other is. */
async function look(): Promise<MachineUsage | undefined> {
  const { machines } = await surveyUsage(ctx, { names: [], all: false });
  const good = machines.find(({ name }) => name === 'good');
  expect(good?.disks[0]).toMatchObject({ virtual: 1024 });
  expect(good?.disks[0]?.problem ?? good?.problem).toBeUndefined();
  return machines.find(({ name }) => name === 'bad');
}

const GiB = 2 ** 30;
const cluster = 65_536n;

describe('a disk that is damaged: its row says so, and the others are shown', () => {
  it.each<[string, Buffer, string]>([
    ['is no qcow2', Buffer.from('hello'), 'is not a qcow2'],
    ['is empty', Buffer.alloc(0), 'is not a qcow2'],
    ['has nothing but the magic', Buffer.from('QFI\xfb', 'latin1'), 'it is not a qcow2'],
    ['has a header that is cut', header(1).subarray(0, 80), "of a kind that QEMU doesn't know"],
    ['is of a version of the future', header(1).fill(9, 7, 8), 'version 9'],
    ['has features of the future', header(1, { features: 1n << 40n }), 'a newer QEMU'],
    ['has clusters of no size', header(1).fill(63, 20, 24), "of a kind that QEMU doesn't know"],
    ['is marked as corrupt', header(1, { corrupt: true }), 'marked it as corrupt'],
    ['stands on a file that is gone', header(1, { backing: 'gone.qcow2' }), 'gone.qcow2 is missing'],
    ['stands on a name that is too long', header(1).fill(255, 8, 20), 'a name of more than 1023 bytes'],
    ['has a first table that is too small', header(GiB, { firstTable: { entries: 1 } }), 'is too small'],
    [
      'has a first table behind its end',
      header(1, { firstTable: { offset: 2 ** 40 } }),
      'is not where it says',
    ],
    [
      'has a first table between clusters',
      header(1, { firstTable: { offset: 65_537 } }),
      'is not where it says',
    ],
    [
      'has a first table of 32 GiB',
      header(1, { firstTable: { entries: 0xffffffff } }),
      'larger than any disk needs',
    ],
    [
      'has a second table behind its end',
      header(1, { firstTable: { first: cluster << 20n } }),
      'leads out of the file',
    ],
    [
      'has a second table between clusters',
      header(1, { firstTable: { first: cluster + 512n } }),
      'makes no sense',
    ],
    ['is cut in its first table', header(1).subarray(0, 65_536), 'is not where it says'],
    [
      'has more snapshots than there can be',
      header(1, { snapshots: { offset: 65_536, count: 2 ** 31 } }),
      'snapshots',
    ],
    [
      'has snapshots behind its end',
      header(1, { snapshots: { offset: 2 ** 40, count: 1 } }),
      'ends too early',
    ],
    [
      'has snapshots that are none',
      header(1, { snapshots: { offset: 65_536, count: 65_536 } }),
      'makes no sense',
    ],
  ])('%s', async (_, content, words) => {
    await writeFile(bad, content);
    expect((await look())?.disks[0]?.problem).toContain(words);
  });

  it('claims what would fill the memory, in a file that is long enough for it', async () => {
    await writeFile(bad, header(2 ** 50, { firstTable: { entries: 0x3fffffff } }));
    await truncate(bad, 100 * GiB);
    const before = process.memoryUsage.rss();
    expect((await look())?.disks[0]?.problem).toContain('larger than any disk needs');
    expect(process.memoryUsage.rss() - before).toBeLessThan(200 * 2 ** 20);
  });

  it('is cut off by the size of its data, which its estimate survives', async () => {
    const made = spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', bad, '1G'], { encoding: 'utf8' });
    expect(made.stderr).toBe('');
    spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 32M', bad]);
    await truncate(bad, 20 * 2 ** 20);
    expect((await look())?.disks[0]).toMatchObject({ virtual: GiB });
  });
});

describe('a disk that is no file', () => {
  it.each<[string, () => Promise<unknown>, string]>([
    ['a dangling link', () => symlink(join(ctx.folder, 'nowhere'), bad), 'is missing'],
    ['a link in a circle', () => symlink(bad, bad), 'circle'],
    ['a folder', () => mkdir(bad), 'EISDIR'],
    ['a pipe, to which nobody writes', () => Promise.resolve(spawnSync('mkfifo', [bad])), 'is a pipe'],
    ['a device', () => symlink('/dev/zero', bad), 'is a device'],
    // Also for root, whom no permission keeps out.
    ['a file that can not be read', () => symlink('/proc/self/mem', bad), 'EIO'],
  ])('%s: its row says so at once', async (_, make, words) => {
    await make();
    const machine = await look();
    expect([machine?.problem, machine?.disks[0]?.problem].join('; ')).toContain(words);
  });

  it('a socket', async () => {
    const server = createServer().listen(join(ctx.folder, 's'));
    try {
      await once(server, 'listening');
      await symlink(join(ctx.folder, 's'), bad);
      expect((await look())?.disks[0]?.problem).toContain('is a socket');
    } finally {
      server.close();
    }
  });

  it('a file without permissions is told, or read by root', async () => {
    await writeFile(bad, header(GiB));
    await chmod(bad, 0);
    const disk = (await look())?.disks[0];
    if (process.getuid?.() === 0) expect(disk).toMatchObject({ virtual: GiB });
    else expect(disk?.problem).toContain('EACCES');
  });
});

describe('a disk that others are at', () => {
  it('is told as in use while a QEMU that zfsdev did not start writes to it', async () => {
    spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', bad, '1G']);
    const qemu = spawn('qemu-io', ['-f', 'qcow2', bad], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      await once(qemu.stdout, 'data');
      const machine = await look();
      expect(machine?.problem).toContain('is in use by a QEMU');
      expect(machine?.disks[0]).toMatchObject({ kind: 'qcow2', virtual: GiB });
      expect(machine?.disks[0]?.problem).toBeUndefined();
    } finally {
      qemu.stdin.end('quit\n');
      await once(qemu, 'exit');
    }
    expect((await look())?.problem).toBeUndefined();
  });

  it('may go while it is looked at: its row says so, or is gone with it', async () => {
    for (let round = 0; round < 40; round += 1) {
      await writeFile((await stoppedInstance(ctx.paths, 'bad')).disk, header(GiB));
      const looking = look();
      for (let turns = 0; turns < round % 8; turns += 1) await new Promise(setImmediate);
      await rm(round % 2 === 0 ? bad : dirname(bad), { recursive: true, force: true });
      const machine = await looking;
      if (machine?.disks[0]?.virtual === 0) expect(machine.disks[0].problem ?? machine.problem).toBeDefined();
    }
  });
});

describe('the exit code', () => {
  it('is 1 only if nothing could be read', async () => {
    const zfsdev = shell(ctx.paths.home);
    await writeFile(bad, 'nothing');
    const some = await zfsdev('usage');
    expect(some.stdout).toMatch(/^bad +stopped +\? /m);
    expect(some.stdout).toContain('is not a qcow2');
    expect(some.exitCode).toBe(0);
    expect((await zfsdev('usage', 'bad')).exitCode).toBe(1);
    expect((await zfsdev('usage', 'good')).exitCode).toBe(0);
  });
});
