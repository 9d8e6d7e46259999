import { appendFile, mkdtemp, readdir, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ownHome } from '../support/home.ts';
import { imageKernel } from '../support/kernel-archive.ts';

const zfsdev = ownHome();
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-boot-'));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const warmStates = (): Promise<string[]> => readdir(join(zfsdev.home, 'warm')).catch(() => []);

it('a kernel from an archive boots with its own modules, and no warm machine is used', async () => {
  const { archive, release } = await imageKernel(zfsdev.home, folder);
  const before = await warmStates();
  const up = await zfsdev('up', 'zfs-test', '--name', 'own-kernel', '--kernel', archive);
  try {
    expect(up).toMatchObject({ exitCode: 0 });
    expect(up.stderr).not.toContain('warm');
    expect(await warmStates()).toEqual(before);
    const look = await zfsdev(
      'exec',
      'own-kernel',
      '--',
      'sh',
      '-c',
      'uname -r; findmnt -no SOURCE,OPTIONS /lib/modules/*',
    );
    expect(look.stdout).toMatch(new RegExp(`^${release.replaceAll('+', '\\+')}\n/dev/vd\\S+ ro`));
    expect(await zfsdev('kernel', 'remove', release)).toMatchObject({ exitCode: 4 });
    expect((await zfsdev('up', 'zfs-test', '--name', 'own-kernel')).stderr).toContain('another kernel');
  } finally {
    await zfsdev('delete', '--force', 'own-kernel');
  }
  expect(await zfsdev('kernel', 'remove', release)).toMatchObject({ exitCode: 0 });
});

it('a kernel that calls itself otherwise than its archive says is found out', async () => {
  const { archive } = await imageKernel(zfsdev.home, folder, { release: '6.99.0-lie' });
  const up = await zfsdev(
    'up',
    'kernel-build',
    '--name',
    'liar',
    '--kernel',
    archive,
    '--overcommit',
    '--memory',
    '1GiB',
  );
  try {
    expect(up.stderr).toMatch(/runs the kernel .*, and not 6\.99\.0-lie/);
    expect(up.exitCode).toBe(1);
  } finally {
    await zfsdev('delete', '--force', 'liar');
    await zfsdev('kernel', 'remove', '6.99.0-lie');
  }
});

it.each([
  ['for other processors', { architecture: 'sparc' }, /for sparc/, 4],
  ['without OpenZFS, for a template with a pool', { zfs: '' }, /without OpenZFS/, 2],
])('a kernel %s is refused before a machine is made', async (_, told, message, code) => {
  const { archive, release } = await imageKernel(zfsdev.home, folder, told);
  const { stderr, exitCode } = await zfsdev('up', 'zfs-test', '--name', 'refused', '--kernel', archive);
  expect(stderr).toMatch(message);
  expect(exitCode).toBe(code);
  await zfsdev('kernel', 'remove', release);
});

it('an archive that was cut off, or that has more in it than it says, is not taken in', async () => {
  const { archive } = await imageKernel(zfsdev.home, folder);
  await truncate(archive, 10_000);
  expect(await zfsdev('kernel', 'add', archive)).toMatchObject({ exitCode: 1 });
  await appendFile(archive, 'rubbish');
  const { stderr } = await zfsdev('kernel', 'add', archive);
  expect(stderr).toContain('is not a whole archive of a kernel');
  expect((await readdir(join(zfsdev.home, 'kernels'))).filter((name) => name.startsWith('.'))).toEqual([]);
});
