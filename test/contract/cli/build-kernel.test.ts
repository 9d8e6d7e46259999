import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { call } from '../../support/call.ts';
import { program, shell, temporaryHome, type Shell } from '../../support/zfsdev.ts';

let zfsdev: Shell;
let remove: () => Promise<void>;

beforeAll(async () => {
  const { home, ...rest } = await temporaryHome();
  zfsdev = shell(home);
  remove = rest.remove;
});

afterAll(() => remove());

it.each<[string, readonly string[], RegExp, number]>([
  ['a source that is not there', ['--source', '/no/such/linux.tar.xz'], /--source: \/no\/such/, 4],
  ['a configuration that is none', ['--config', 'allyes'], /defconfig, tinyconfig, debian-cloud/, 4],
  ['a checksum that is none', ['--source', 'https://a.example/x', '--sha256', '12'], /--sha256/, 2],
  ['a localversion that can not be one', ['--localversion', 'a b'], /--localversion/, 2],
  ['a builder that is none', ['--builder', 'cloud'], /--builder/, 2],
  ['a driver that is none', ['--driver', 'xen'], /--driver/, 2],
  [
    'a driver where there is no machine',
    ['--driver', 'lima', '--builder', 'chroot'],
    /exclude each other/,
    2,
  ],
  ['both to keep and to delete', ['--keep', '--delete-after'], /--keep and --delete-after/, 2],
  ['to delete at another time', ['--delete-after=never'], /"always", or nothing/, 2],
  ['a time that is none', ['--timeout', 'long'], /"long" is not a time span/, 2],
])('refuses %s before anything is made', async (_, words, message, code) => {
  const { stderr, exitCode } = await zfsdev('build-kernel', ...words);
  expect(stderr).toMatch(message);
  expect(stderr).not.toMatch(/\n\s+at .*\.js:\d+/);
  expect(exitCode).toBe(code);
  expect(await readdir(zfsdev.home)).toEqual([]);
});

it('says what it would do, and does nothing', async () => {
  const { stderr, exitCode } = await zfsdev('build-kernel', '--config', 'tinyconfig', '--dry-run');
  expect(stderr).toMatch(/would build a kernel from Debian's linux-source with tinyconfig/);
  expect(exitCode).toBe(0);
  expect(await readdir(zfsdev.home)).toEqual([]);
});

it('counts the processors that it may use, and says that the machine gets no more', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-kernel-'));
  try {
    for (const name of ['bin', 'linux', 'home']) await mkdir(join(folder, name));
    await writeFile(join(folder, 'bin/zstd'), '#!/bin/sh\n');
    await chmod(join(folder, 'bin/zstd'), 0o755);
    const own = /^Cpus_allowed_list:\s*(\d+)/m.exec(await readFile('/proc/self/status', 'utf8'))?.[1] ?? '';
    const options = ['--source', 'linux', '--config', 'tinyconfig', '--zfs', 'none', '--output', 'out'];
    const taskset = call('sh', '-c', 'command -v taskset').trim();
    const words = ['-c', own, process.execPath, program, 'build-kernel', ...options];
    // There is no QEMU on this PATH: it goes no further than that.
    const env = { PATH: join(folder, 'bin'), ZFSDEV_HOME: join(folder, 'home'), NO_COLOR: '1' };
    const { status, stderr } = spawnSync(taskset, words, { cwd: folder, encoding: 'utf8', env });
    expect(stderr).toMatch(/^this host has 1 processor: the machine gets that instead of 4$/m);
    expect(stderr).toMatch(/qemu-system-\w+ is not installed/);
    expect(status).toBe(5);
    expect(await readdir(join(folder, 'home', 'builds'))).toEqual([]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

it('refuses a kernel that is no archive, or not there', async () => {
  const file = join(zfsdev.home, 'file');
  await writeFile(file, 'no archive');
  const bad = await zfsdev('up', 'zfs-test', '--kernel', file);
  expect(bad.stderr).toMatch(/is not a whole archive of a kernel/);
  expect(bad.exitCode).toBe(1);
  const gone = await zfsdev('up', 'zfs-test', '--kernel', '/no/such');
  expect(gone.stderr).toMatch(/the kernel \/no\/such/);
  expect(gone.exitCode).toBe(4);
  expect((await zfsdev('kernel', 'inspect', 'x')).exitCode).toBe(4);
  expect((await zfsdev('kernel', 'list', '--json')).stdout).toBe('{"kernels":[]}');
});
