import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, statfs, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { shell, type Shell } from '../support/zfsdev.ts';

const MiB = 2 ** 20;
let folder: string;
let small: string;
let zfsdev: Shell;

function call(...argv: [string, ...string[]]): void {
  const { status, stderr } = spawnSync(argv[0], argv.slice(1), { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`);
}

// A file system of its own that can really be filled; the image is reached through a link.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-full-'));
  small = join(folder, 'small');
  const file = join(folder, 'small.img');
  await writeFile(file, '');
  await truncate(file, 700 * MiB);
  await mkdir(small);
  call('mkfs.ext4', '-q', '-m', '0', file);
  call('mount', '-o', 'loop', file, small);
  await symlink(join(inject('vmHome'), 'images'), join(small, 'images'));
  zfsdev = shell(small);
});
afterAll(async () => {
  await zfsdev('delete', '--force', 'full');
  call('umount', '--lazy', small);
  await rm(folder, { recursive: true, force: true });
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
  const filler = join(small, 'filler');
  const { bavail, bsize } = await statfs(small);
  // Room for the instance's initrd and an empty disk, and not for what the first boot writes.
  await writeFile(filler, Buffer.alloc(bavail * bsize - 6 * MiB, 1));
  const up = await zfsdev('up', 'zfs-test', '--name', 'full', '--cold', '--overcommit', '--timeout', '30m');
  expect(up.stderr).toContain("stands still: the host's disk was full");
  expect(up.exitCode).toBe(3);
  await rm(filler);
});

it('a guest on a full host stands still, is told so everywhere, and goes on with nothing lost once there is room', async () => {
  expect((await zfsdev('up', 'zfs-test', '--name', 'full', '--cold', '--overcommit')).exitCode).toBe(0);
  const filler = join(small, 'filler');
  await writeFile(filler, Buffer.alloc(450 * MiB, 1));
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
  await rm(filler);
  const resume = await zfsdev('resume', 'full');
  expect(resume).toMatchObject({ exitCode: 0, stdout: 'full goes on' });
  expect((await write.result).stdout).toBe('written');
  const check = 'sha256sum </root/first | cmp - /root/sum && zpool scrub -w testpool && zpool status -x';
  const checked = await zfsdev('exec', 'full', '--', 'sh', '-c', check);
  expect(checked).toMatchObject({ exitCode: 0, stdout: 'all pools are healthy' });
  expect((await zfsdev('resume', 'full')).stdout).toBe('full was not paused');
});
