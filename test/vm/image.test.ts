import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ownHome } from '../support/home.ts';
import { machinesOf } from '../support/machines.ts';
import { shell, type Shell } from '../support/zfsdev.ts';

const built = ownHome();
let folder: string;
let work: string;
let zfsdev: Shell;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-image-'));
  work = join(folder, 'work');
  await mkdir(work);
  zfsdev = shell(join(folder, 'home'), { TMPDIR: work });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

async function expectNothingLeft(): Promise<void> {
  expect(await readdir(work)).toEqual([]);
  expect(
    (await readdir(join(zfsdev.home, 'images'))).filter((name) => /^(\.building|[0-9a-f]{64})/.test(name)),
  ).toEqual([]);
  expect(await machinesOf(folder)).toEqual([]);
  expect(spawnSync('grep', ['-F', folder, '/proc/mounts'], { encoding: 'utf8' }).stdout).toBe('');
}

describe('image build that fails', () => {
  it('for a mirror that does not answer names the mirror and --mirror', async () => {
    const { exitCode, stderr } = await zfsdev('image', 'build', '--mirror', 'http://127.0.0.1:1/debian');
    expect(stderr).toContain('http://127.0.0.1:1/debian');
    expect(stderr).toContain('next:');
    expect(exitCode).toBe(1);
    await expectNothingLeft();
  });

  it('for a disk that is full says so, and leaves nothing', async () => {
    const file = join(folder, 'small.img');
    await writeFile(file, '');
    await truncate(file, 160 * 2 ** 20);
    const run = (program: string, ...args: string[]): void => {
      const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
      expect({ program, status, stderr }).toMatchObject({ status: 0 });
    };
    run('mkfs.ext4', '-q', '-m', '0', file);
    run('mount', '-o', 'loop', file, work);
    try {
      await rm(join(work, 'lost+found'), { recursive: true });
      const { exitCode, stderr } = await zfsdev('image', 'build');
      expect(stderr).toMatch(/[Nn]o space left|disk is full|enough free space/);
      expect(stderr).toContain('TMPDIR');
      expect(exitCode).toBeGreaterThan(0);
      expect(await readdir(work)).toEqual([]);
    } finally {
      run('umount', work);
    }
    await expectNothingLeft();
  });

  it.each([
    ['SIGINT', 'installing'],
    ['SIGTERM', 'downloading'],
  ] as const)('by %s while it is %s undoes all and exits 130', async (signal, at) => {
    const build = zfsdev.begin('image', 'build', '--json');
    await build.until(`"text":"${at}`);
    build.kill(signal);
    const { exitCode, stdout } = await build.result;
    expect(stdout).toContain('"reason":"interrupted"');
    expect(exitCode).toBe(130);
    await expectNothingLeft();
  });
});

describe('image build that is killed', () => {
  it('by kill -9 leaves no process, and the next build sweeps its folder', async () => {
    const build = zfsdev.begin('image', 'build', '--json');
    await build.until('"text":"installing');
    build.kill('SIGKILL');
    await build.result;
    await expect.poll(() => machinesOf(work), { timeout: 60_000 }).toEqual([]);
    expect(await readdir(work)).toHaveLength(1);
    // It sweeps before it asks the mirror.
    expect((await zfsdev('image', 'build', '--mirror', 'http://127.0.0.1:1/debian')).exitCode).toBe(1);
    await expectNothingLeft();
  });
});

interface Listed {
  readonly digest: string;
  readonly flavour: string;
  readonly actualBytes: number;
  readonly usedBy: readonly string[];
}

async function images(): Promise<Listed[]> {
  return (JSON.parse((await built('image', 'list', '--json')).stdout) as { images: Listed[] }).images;
}

describe('images', () => {
  it('are listed and inspected, and building again does nothing', async () => {
    const image = (await images()).find(({ flavour }) => flavour === 'zfs');
    expect(image?.actualBytes).toBeLessThanOrEqual(250 * 2 ** 20);
    const digest = image?.digest ?? '';
    const { stdout } = await built('image', 'inspect', digest.slice(0, 8));
    expect(stdout).toContain('openzfs');
    expect(stdout).toMatch(/^shares +9p virtiofs$/m);
    const again = await built('image', 'build');
    expect(again.stderr).not.toContain('Compiling');
    expect(again.exitCode).toBe(0);
  });

  it('of another flavour make a machine without ZFS, with the tools of a kernel build if its template has them', async () => {
    const up = await built(
      'up',
      'kernel-build',
      '--cold',
      '--name',
      'plain',
      '--cpus',
      '2',
      '--memory',
      '1GiB',
      '--disk',
      '15GiB',
      '--overcommit',
    );
    expect(up.stderr).not.toMatch(/^error:/m);
    expect(up.exitCode).toBe(0);
    expect((await built('exec', 'plain', '--', 'sh', '-c', 'command -v zpool')).exitCode).not.toBe(0);
    expect((await built('exec', 'plain', '--', 'sh', '-c', 'gcc --version && flex --version')).exitCode).toBe(
      0,
    );
    const size = await built('exec', 'plain', '--', 'df', '--output=size', '-B1', '/');
    expect(Number(size.stdout.split('\n')[1])).toBeGreaterThan(14 * 2 ** 30);
    const used = (await images()).find(({ usedBy }) => usedBy.includes('plain'))?.digest ?? '';
    const refused = await built('image', 'remove', used);
    expect(refused.stderr).toContain('plain stands on the image');
    expect(refused.exitCode).toBe(4);
    expect((await built('delete', '--force', 'plain')).exitCode).toBe(0);
    expect((await built('image', 'remove', used)).exitCode).toBe(0);
  });
});
