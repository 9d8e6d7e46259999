import { spawnSync } from 'node:child_process';
import { copyFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { smallFilesystem, type SmallFilesystem } from '../support/filesystem.ts';
import { shell, type Shell } from '../support/zfsdev.ts';

const MiB = 2 ** 20;
let small: SmallFilesystem;
let zfsdev: Shell;

beforeAll(async () => {
  small = await smallFilesystem(700 * MiB, join(inject('vmHome'), 'images'));
  zfsdev = shell(small.home);
});
afterAll(async () => {
  await zfsdev('delete', '--force', 'full');
  await small.remove();
});

it('plan says that it does not fit, by how much, and what to do', async () => {
  const plan = await zfsdev('plan');
  expect(plan.exitCode).toBe(3);
  expect(plan.stdout).toContain("it doesn't fit");
  expect(plan.stdout).toMatch(/in the worst case .* are missing/);
  expect(plan.stdout).toContain('too little for any machine');
  const tiny = await zfsdev('up', 'zfs-test', '--name', 'full');
  expect(tiny.exitCode).toBe(3);
});

it('a machine that comes to a standstill while it boots is given up at once, not at the deadline', async () => {
  // Room for the instance's initrd and an empty disk, and not for what the first boot writes.
  const makeRoom = await small.fillUpTo(6 * MiB);
  const up = await zfsdev('up', 'zfs-test', '--name', 'full', '--cold', '--overcommit', '--timeout', '30m');
  expect(up.stderr).toContain("stands still: the host's disk was full");
  expect(up.exitCode).toBe(3);
  await makeRoom();
});

it('a guest on a full host stands still, is told so everywhere, and goes on with nothing lost once there is room', async () => {
  expect((await zfsdev('up', 'zfs-test', '--name', 'full', '--cold', '--overcommit')).exitCode).toBe(0);
  const makeRoom = await small.fillUpTo(200 * MiB);
  const script =
    'head -c 300M /dev/urandom >/root/first && sha256sum </root/first >/root/sum && sync && head -c 60M /dev/urandom >/testpool/file && zpool sync && echo written';
  const write = zfsdev.begin('exec', 'full', '--', 'sh', '-c', script);
  let list = '';
  while (!/full\s+paused/.test(list)) list = (await zfsdev('list')).stdout;
  expect(list).toContain("the host's disk was full");
  expect(list).toContain('zfsdev resume full');
  expect((await zfsdev('inspect', 'full')).stdout).toContain('paused: ');
  expect((await zfsdev('usage')).stdout).toContain('stands still');
  const early = await zfsdev('resume', 'full');
  expect(early.exitCode).toBe(3);
  expect(early.stderr).toContain('zfsdev resume full');
  await makeRoom();
  const resume = await zfsdev('resume', 'full');
  expect(resume).toMatchObject({ exitCode: 0, stdout: 'full goes on' });
  expect((await write.result).stdout).toBe('written');
  const check = 'sha256sum </root/first | cmp - /root/sum && zpool scrub -w testpool && zpool status -x';
  const checked = await zfsdev('exec', 'full', '--', 'sh', '-c', check);
  expect(checked).toMatchObject({ exitCode: 0, stdout: 'all pools are healthy' });
  expect((await zfsdev('resume', 'full')).stdout).toBe('full was not paused');
});

it('a snapshot that the host has no room for is not there, and the machine goes on', async () => {
  const create = (...options: string[]): ReturnType<Shell> =>
    zfsdev('snapshot', 'create', 'full', 's', '--memory', ...options);
  const refused = await create();
  expect(refused.exitCode).toBe(3);
  expect(refused.stderr).toContain('the memory of full can still grow by');
  const makeRoom = await small.fillUpTo(30 * MiB);
  const failed = await create('--overcommit');
  expect(failed.stderr).toContain("the host's disk was full before the snapshot was whole");
  expect(failed.exitCode).toBe(3);
  const { stdout } = await zfsdev('snapshot', 'list', 'full', '--json');
  expect(JSON.parse(stdout)).toMatchObject({ snapshots: [] });
  await makeRoom();
  // It may have come to write something of its own meanwhile.
  expect((await zfsdev('resume', 'full')).exitCode).toBe(0);
  const scrub = ['sh', '-c', 'zpool scrub -w testpool && zpool status -x'];
  expect((await zfsdev('exec', 'full', '--', ...scrub)).stdout).toBe('all pools are healthy');
});

it('a compaction that the host has no room for leaves the old disk, whole, and nothing else', async () => {
  expect((await zfsdev('stop', 'full')).exitCode).toBe(0);
  const folder = join(small.home, 'instances', 'full');
  const disk = join(folder, 'disk.qcow2');
  const refused = await zfsdev('compact', 'full');
  expect(refused.exitCode).toBe(3);
  expect(refused.stderr).toContain('the compacted disk of full (temporary)');
  const original = join(small.home, '..', 'original.qcow2');
  await copyFile(disk, original);
  const before = await readdir(folder);
  const makeRoom = await small.fillUpTo(50 * MiB);
  const failed = await zfsdev('compact', 'full', '--overcommit');
  expect(failed.stderr).toContain('the host\'s disk was full before the disk of "full" was written anew');
  expect(failed.exitCode).toBe(3);
  expect(await readdir(folder)).toEqual(before);
  await makeRoom();
  const check = spawnSync('qemu-img', ['check', disk], { encoding: 'utf8' });
  expect(check.stdout).toContain('No errors');
  expect(spawnSync('cmp', [disk, original]).status).toBe(0);
});
