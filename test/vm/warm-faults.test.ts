import { mkdtemp, open, readFile, readdir, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { smallFilesystem } from '../support/filesystem.ts';
import { copyTree, ownHome, removeAll } from '../support/home.ts';
import { machinesOf } from '../support/machines.ts';
import { shell } from '../support/zfsdev.ts';

const imageHome = inject('vmHome');
const zfsdev = ownHome();
const { home } = zfsdev;
const warm = join(home, 'warm');
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-warm-'));
});
afterEach(() => removeAll(zfsdev));
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The folder of the warm state of `zfs-test`, whole again, with files that nobody else has links to. */
async function warmFolder(): Promise<string> {
  await rm(warm, { recursive: true, force: true });
  copyTree(join(imageHome, 'warm'), home);
  const { stdout, stderr } = await zfsdev('warm', 'build', 'zfs-test', '--json');
  const { key } = JSON.parse(stdout.split('\n').at(-1) ?? '') as { key?: string };
  if (key === undefined) throw new Error(`${stdout}\n${stderr}`);
  return join(warm, key);
}

async function expectTidy(): Promise<void> {
  expect((await readdir(warm)).filter((name) => name.startsWith('.'))).toEqual([]);
  expect(await machinesOf(home)).toEqual([]);
}

async function edit(manifest: string, change: Readonly<Record<string, unknown>>): Promise<void> {
  const present = JSON.parse(await readFile(manifest, 'utf8')) as object;
  await writeFile(manifest, JSON.stringify({ ...present, ...change }));
}

/** Makes one bit in the middle of a file another. */
async function damage(path: string): Promise<void> {
  const { size } = await stat(path);
  const offset = Math.floor(size / 2);
  const file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, offset);
  await file.close();
}

const warnings = (stderr: string): string[] => stderr.match(/^warning:.*/gm) ?? [];

/** Begins an up, and ends it once it boots: by then it is decided, and told, that no warm state is used. Gives what it said. */
async function upUntilItBoots(): Promise<string> {
  const up = zfsdev.begin('up', 'zfs-test', '--name', 'a');
  await up.until('Booting');
  up.kill('SIGINT');
  const { exitCode, stderr } = await up.result;
  expect(exitCode).toBe(130);
  return stderr;
}

describe('a warm state that can not be used is noticed before the guest runs, told in one line, and made anew', () => {
  it('its memory is cut short', async () => {
    const at = await warmFolder();
    await truncate(join(at, 'memory'), 4096);
    const up = await zfsdev('up', 'zfs-test', '--name', 'a');
    expect(warnings(up.stderr)).toEqual([expect.stringContaining('bytes instead of')]);
    expect(up.stderr).toContain('Saving it as a warm machine');
    expect(up.stdout).toContain('state: ONLINE');
    expect(up.exitCode).toBe(0);
    const again = await zfsdev('up', 'zfs-test', '--name', 'b');
    expect(again.stderr).not.toContain('Booting');
    expect(again.exitCode).toBe(0);
  });

  it.each([
    ['another version', 'another version of zfsdev', { format: 99 }],
    ['another processor', 'another processor: Z80', { cpu: 'Z80' }],
  ])('it is of %s', async (_, words, change) => {
    const at = await warmFolder();
    await edit(join(at, 'manifest.json'), change);
    expect(warnings(await upUntilItBoots())).toEqual([expect.stringContaining(words)]);
    await expect(stat(join(at, 'memory'))).rejects.toThrow('ENOENT');
  });

  it('a bit of its memory is another', async () => {
    const at = await warmFolder();
    await damage(join(at, 'memory'));
    const up = await zfsdev('up', 'zfs-test', '--name', 'a');
    expect(warnings(up.stderr)).toEqual([expect.stringContaining('is damaged')]);
    expect(up.stdout).toContain('state: ONLINE');
    const state = JSON.parse(await readFile(join(home, 'instances', 'a', 'state.json'), 'utf8')) as {
      warm?: string;
    };
    expect(state.warm).toBeUndefined();
    await expect(stat(join(at, 'memory'))).rejects.toThrow('ENOENT');
  });

  it.each(['devices', 'disk.qcow2'])('a bit of its %s is another', async (name) => {
    const at = await warmFolder();
    await damage(join(at, name));
    expect(warnings(await upUntilItBoots())).toEqual([expect.stringContaining('is damaged')]);
    await expect(stat(join(at, 'memory'))).rejects.toThrow('ENOENT');
  });

  it('the image it stands on is gone', async () => {
    const at = await warmFolder();
    const { imageDigest } = JSON.parse(await readFile(join(at, 'manifest.json'), 'utf8')) as {
      imageDigest: string;
    };
    const [image, aside] = [join(home, 'images', imageDigest), join(home, 'images', '.aside')];
    await rename(image, aside);
    try {
      // Nobody builds one in this test: there is no mirror at this port.
      const up = await zfsdev('up', 'zfs-test', '--name', 'a', '--mirror', 'http://127.0.0.1:9/debian');
      expect(warnings(up.stderr)).toEqual([expect.stringContaining('the image it stands on is gone')]);
      expect(up.exitCode).not.toBe(0);
      expect((await zfsdev('list')).stdout).toContain('no instances');
    } finally {
      await rm(image, { recursive: true, force: true });
      await rename(aside, image);
    }
    expect(warnings(await upUntilItBoots())).toEqual([]);
  });
});

describe('a copy of a warm state, with its holes written out', () => {
  it('is used, and takes no more room than before from then on', async () => {
    const memory = join(await warmFolder(), 'memory');
    const before = (await stat(memory)).blocks;
    // As an archiver does it that knows nothing of holes; two mebibytes say as much as two gibibytes.
    const { size } = await stat(memory);
    const file = await open(memory, 'r+');
    const zeros = Buffer.alloc(1024 * 1024);
    for (let offset = size - 2 * zeros.length; offset < size; offset += zeros.length) {
      const present = Buffer.alloc(zeros.length);
      await file.read(present, 0, present.length, offset);
      await file.write(present, 0, present.length, offset);
    }
    await file.close();
    const up = await zfsdev('up', 'zfs-test', '--name', 'a');
    expect(warnings(up.stderr)).toEqual([]);
    expect(up.stderr).toContain('Forking');
    expect(up.exitCode).toBe(0);
    expect((await stat(memory)).blocks).toBeLessThanOrEqual(before * 1.1);
  });
});

describe('saving', () => {
  beforeEach(async () => {
    await zfsdev('warm', 'prune');
  });

  it('cut off by kill -9 of zfsdev leaves nothing that stays, and is then done once by two ups at once', async () => {
    const up = zfsdev.begin('up', 'zfs-test', '--name', 'a');
    await up.until('Saving it as a warm machine');
    up.kill('SIGKILL');
    await up.result;
    const both = await Promise.all(['a', 'b'].map((name) => zfsdev('up', 'zfs-test', '--name', name)));
    expect(both.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(both.filter(({ stderr }) => stderr.includes('Saving it as a warm machine'))).toHaveLength(1);
    expect((await zfsdev('list')).stdout).not.toContain('warm-');
    expect(await readdir(warm)).toHaveLength(1);
    await removeAll(zfsdev);
    await expectTidy();
  });

  it('cut off by kill -9 of QEMU boots without, with one warning', async () => {
    const up = zfsdev.begin('up', 'zfs-test', '--name', 'a');
    await up.until('Saving it as a warm machine');
    for (const pid of await machinesOf(home)) process.kill(pid, 'SIGKILL');
    await up.until('no warm state could be saved');
    // That such a machine comes up is seen where there was no room for the state.
    await expect.poll(() => machinesWithPidFile('a'), { timeout: 60_000 }).toHaveLength(1);
    up.kill('SIGINT');
    const { exitCode, stderr } = await up.result;
    expect(warnings(stderr)).toEqual([expect.stringContaining('no warm state could be saved')]);
    expect(exitCode).toBe(130);
    await removeAll(zfsdev);
    expect(await readdir(warm)).toEqual([]);
    await expectTidy();
  });

  it('without room is cleaned up, and the instance goes on', async () => {
    const small = await smallFilesystem(160 * 2 ** 20, join(home, 'images'));
    try {
      const there = shell(small.home);
      const up = await there('up', 'zfs-test', '--name', 'a', '--overcommit');
      expect(warnings(up.stderr).at(-2)).toContain('no warm state could be saved');
      expect(up.stdout).toContain('state: ONLINE');
      expect(up.exitCode).toBe(0);
      expect((await there('list')).stdout).not.toContain('warm-');
      expect(await readdir(join(small.home, 'warm')).catch(() => [])).toEqual([]);
      await removeAll(there);
    } finally {
      await small.remove();
    }
  });
});

describe('a fork', () => {
  it('cut off by kill -9 of zfsdev is made anew by another up', async () => {
    await warmFolder();
    const up = zfsdev.begin('up', 'zfs-test', '--name', 'a');
    await up.until('Forking');
    up.kill('SIGKILL');
    await up.result;
    const again = await zfsdev('up', 'zfs-test', '--name', 'a');
    expect(again.stderr).not.toMatch(/^error:/m);
    expect(again.exitCode).toBe(0);
    await removeAll(zfsdev);
    await expectTidy();
  });

  it('whose QEMU is killed meanwhile leaves nothing, and the warm state can still be used or is made anew', async () => {
    await warmFolder();
    const up = zfsdev.begin('up', 'zfs-test', '--name', 'a');
    await up.until('Forking');
    let pids: number[] = [];
    let ended = false;
    void up.result.then(() => (ended = true));
    while (pids.length === 0 && !ended) pids = await machinesWithPidFile('a');
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    const { exitCode, stderr } = await up.result;
    if (exitCode === 0) expect(warnings(stderr)).toHaveLength(1);
    else expect(stderr).toMatch(/^error:/m);
    await removeAll(zfsdev);
    await expectTidy();
    expect((await zfsdev('up', 'zfs-test', '--name', 'b')).exitCode).toBe(0);
  });

  it('has the time of the host, though that was moved by a day since the save', async () => {
    await warmFolder();
    const day = 86_400_000;
    const shift = join(folder, 'shift.mjs');
    await writeFile(shift, `const now = Date.now; Date.now = () => now() + ${day};\n`);
    const tomorrow = zfsdev.with({ NODE_OPTIONS: `--import=${shift}` });
    expect((await tomorrow('up', 'zfs-test', '--name', 'a')).exitCode).toBe(0);
    const began = (Date.now() + day) / 1000;
    const now = Number((await zfsdev('exec', 'a', '--', 'date', '+%s.%N')).stdout);
    expect(now).toBeGreaterThan(began - 1);
    expect(now).toBeLessThan((Date.now() + day) / 1000 + 1);
  });
});

async function machinesWithPidFile(name: string): Promise<number[]> {
  const text = await readFile(join(home, 'instances', name, 'qemu.pid'), 'utf8').catch(() => '');
  return text.trim() === '' ? [] : [Number(text)];
}
