import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { chmod, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { lifeOf } from '../support/life.ts';
import { machinesOf } from '../support/machines.ts';
import { shell } from '../support/zfsdev.ts';
import { bareLima, diskOf, expectNothingLeft } from './support.ts';

const home = inject('limaHome');
const name = 'theirs';
const config = resolve(import.meta.dirname, '../../lima-configs/zfs-test-minimal.yaml');
/** A home of Lima that is not zfsdev's; short, as its sockets have to fit. */
const theirs = mkdtempSync(join(tmpdir(), 'zt-'));
const folder = join(theirs, name);
const zfsdev = shell(home, { LIMA_HOME: theirs });
let environment: NodeJS.ProcessEnv;

/** limactl alone, as somebody without zfsdev calls it. */
function limactl(...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('limactl', ['--tty=false', ...args], {
    encoding: 'utf8',
    env: environment,
    timeout: 1_200_000,
  });
  if (status !== 0) throw new Error(`limactl ${args.join(' ')} ended with ${status}:\n${stderr}`);
  return stdout;
}

/** What Lima itself knows and keeps of the machine, but for its disks and logs. */
async function whatLimaHas(): Promise<object> {
  const [yaml, protectedBy] = await Promise.all(
    ['lima.yaml', 'protected'].map((file) => readFile(join(folder, file), 'utf8').catch(() => undefined)),
  );
  const { status, sshLocalPort } = JSON.parse(limactl('list', '--json', name)) as Record<string, unknown>;
  return { yaml, protectedBy, status, sshLocalPort };
}

beforeAll(async () => {
  const { env, image } = await bareLima(home);
  environment = { ...process.env, LIMA_HOME: theirs, ...env };
  const text = await readFile(config, 'utf8');
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  // The file as it is; only that nothing is downloaded where there is an image.
  const first = image === undefined ? '' : `  - location: ${image}\n    arch: ${arch}\n`;
  await writeFile(join(theirs, '_file.yaml'), text.replace('\nimages:\n', `\nimages:\n${first}`));
});

afterAll(async () => {
  limactl('delete', '--force', name);
  await rm(theirs, { recursive: true, force: true });
});

const { guest } = lifeOf(zfsdev, name);

describe('a machine that limactl alone made from a file of lima-configs/', () => {
  it('comes up with its pool, and zfsdev only sees it', async () => {
    limactl('create', `--name=${name}`, join(theirs, '_file.yaml'));
    limactl('start', '--timeout=20m', name);
    const health = ['sudo', 'zpool', 'list', '-H', '-o', 'health', 'testpool'];
    expect(limactl('shell', '--workdir=/', name, ...health)).toBe('ONLINE\n');
    expect(await diskOf(zfsdev, name, '--all')).toMatchObject({ virtualBytes: 4 * 2 ** 30 });
    for (const verb of [['stop'], ['delete', '--force'], ['exec'], ['compact']])
      expect(await zfsdev(...verb, name, ...(verb[0] === 'exec' ? ['--', 'true'] : []))).toMatchObject({
        exitCode: verb[0] === 'exec' ? 125 : 4,
      });
  });

  it('is adopted, looked at and cleaned, and Lima has it as before', async () => {
    const before = await whatLimaHas();
    expect(await zfsdev('adopt', name)).toMatchObject({ exitCode: 0 });
    const { stdout } = await zfsdev('inspect', name, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ name, status: 'running' });
    expect(await guest('id', '-un')).toBe('root');
    await guest('sh', '-c', 'echo kept >/testpool/file; zpool sync');
    await guest('sh', '-c', 'head -c 64M /dev/urandom >/var/cache/apt/archives/junk.deb; sync');
    const { actualBytes: full } = await diskOf(zfsdev, name);
    const clean = await zfsdev('clean', name);
    expect({ exitCode: clean.exitCode, stderr: clean.stderr }).toMatchObject({ exitCode: 0 });
    expect((await diskOf(zfsdev, name)).actualBytes).toBeLessThan(full - 32 * 2 ** 20);
    expect(await zfsdev('protect', name)).toMatchObject({ exitCode: 0 });
    expect(await zfsdev('unprotect', name)).toMatchObject({ exitCode: 0 });
    expect(await whatLimaHas()).toEqual(before);
  });

  it('is compacted once it is stopped, and limactl starts it again with the pool as it was', async () => {
    limactl('stop', name);
    const before = await diskOf(zfsdev, name);
    await chmod(folder, 0o500);
    expect(await zfsdev('compact', name)).toMatchObject({ exitCode: 1 });
    await chmod(folder, 0o700);
    expect(await diskOf(zfsdev, name)).toEqual(before);
    const compact = await zfsdev('compact', name);
    expect({ exitCode: compact.exitCode, stderr: compact.stderr }).toMatchObject({ exitCode: 0 });
    const after = await diskOf(zfsdev, name);
    expect(after.path).toBe(before.path);
    expect(after.actualBytes).toBeLessThan(before.actualBytes);
    limactl('start', '--timeout=20m', name);
    expect(limactl('shell', '--workdir=/', name, 'cat', '/testpool/file')).toBe('kept\n');
  });

  it('is let go again by delete, and only limactl deletes it', async () => {
    const before = await whatLimaHas();
    expect(await zfsdev('delete', name)).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('is no longer looked after') as string,
    });
    await expectNothingLeft(home);
    expect(await whatLimaHas()).toEqual(before);
    limactl('delete', '--force', name);
    await expect.poll(() => machinesOf(`${theirs}/`), { timeout: 30_000 }).toEqual([]);
  });
});
