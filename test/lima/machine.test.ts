import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { lifeOf } from '../support/life.ts';
import { program, shell } from '../support/zfsdev.ts';
import { diskOf, expectNothingLeft, limaMachines, patience } from './support.ts';

const home = inject('limaHome');
const zfsdev = shell(home);
const name = 'zfs-test';
const { onHost, guest } = lifeOf(zfsdev, name);

// One machine goes through its life; each test begins where the one before it ended.
describe('a machine that limactl runs', () => {
  it('comes up with a pool that the guest itself calls ONLINE', async () => {
    const up = await zfsdev('up', 'zfs-test', '--driver', 'lima', ...patience);
    expect({ exitCode: up.exitCode, stderr: up.stderr }).toMatchObject({ exitCode: 0 });
    expect(up.stdout).toMatch(/pool: testpool\n\s*state: ONLINE/);
    expect(await limaMachines(home)).toEqual([name]);
    expect((await guest('zpool', 'status', 'testpool')).match(/loop\d+\s+ONLINE/g)).toHaveLength(2);
    const again = await zfsdev('up', 'zfs-test', '--driver', 'lima');
    expect(again).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('is running already') as string,
    });
  });

  it('passes exit codes, arguments and standard input through', async () => {
    expect((await zfsdev('exec', name, '--', 'sh', '-c', 'exit 7')).exitCode).toBe(7);
    expect((await zfsdev('exec', name, '--', 'sh', '-c', 'exit 255')).exitCode).toBe(255);
    expect(await guest('id', '-un')).toBe('root');
    const words = ['a b', "it's", '$HOME', '*', '"', '\\', '', 'ünï', 'new\nline'];
    expect(await guest('printf', '[%s]', ...words)).toBe(words.map((word) => `[${word}]`).join(''));
    const { stdout } = spawnSync(process.execPath, [program, 'exec', name, '--', 'sha256sum'], {
      input: 'from the host',
      encoding: 'utf8',
      env: { ...process.env, ZFSDEV_HOME: home },
    });
    expect(stdout.split(' ')[0]).toBe(createHash('sha256').update('from the host').digest('hex'));
  });

  it('copies files and folders both ways', async () => {
    const tree = onHost('a tree');
    await mkdir(join(tree, 'inner'), { recursive: true });
    const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 256));
    await writeFile(join(tree, 'inner', 'data.bin'), content);
    expect(await zfsdev('copy', tree, `${name}:/root/`)).toMatchObject({ exitCode: 0 });
    const sum = await guest('sha256sum', '/root/a tree/inner/data.bin');
    expect(sum.split(' ')[0]).toBe(createHash('sha256').update(content).digest('hex'));
    expect(await zfsdev('copy', `${name}:/root/a tree`, onHost('back'))).toMatchObject({ exitCode: 0 });
    expect(await readFile(join(onHost('back'), 'inner', 'data.bin'))).toEqual(content);
  });

  it('is shown with its disk, and refuses to be deleted while it runs', async () => {
    expect(await diskOf(zfsdev, name)).toMatchObject({ virtualBytes: 4 * 2 ** 30 });
    const { stdout } = await zfsdev('inspect', name, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ name, status: 'running' });
    expect(await zfsdev('delete', name)).toMatchObject({ exitCode: 4 });
  });

  it('gets the volume manager when it is first asked for', async () => {
    const create = await zfsdev('volume', 'create', name, 'data', '--size', '16MiB');
    expect({ exitCode: create.exitCode, stderr: create.stderr }).toMatchObject({ exitCode: 0 });
    expect((await zfsdev('volume', 'list', name)).stdout).toMatch(/^data /m);
    expect(await guest('zfs', 'list', '-H', '-o', 'name', '-t', 'volume')).toBe('testpool/data');
    expect(await guest('stat', '-c', '%a %U', '/run/zfsdev/zvold.sock')).toBe('600 root');
    expect(await zfsdev('volume', 'delete', name, 'data')).toMatchObject({ exitCode: 0 });
    expect((await zfsdev('volume', 'list', name)).stdout).not.toMatch(/^data /m);
  });

  it('goes back to a snapshot with its memory, without a boot', async () => {
    const boot = await guest('cat', '/proc/sys/kernel/random/boot_id');
    const write = (word: string): Promise<string> =>
      guest('sh', '-c', `echo ${word} >/testpool/state && zpool sync && sync`);
    await write('before');
    const create = await zfsdev('snapshot', 'create', name, 'at-work', '--memory');
    expect({ exitCode: create.exitCode, stderr: create.stderr }).toMatchObject({ exitCode: 0 });
    await write('after');
    const load = await zfsdev('snapshot', 'load', name, 'at-work');
    expect({ exitCode: load.exitCode, stderr: load.stderr }).toMatchObject({ exitCode: 0 });
    expect(await guest('cat', '/testpool/state')).toBe('before');
    expect(await guest('cat', '/proc/sys/kernel/random/boot_id')).toBe(boot);
    expect(await guest('zpool', 'status', '-x')).toBe('all pools are healthy');
    expect((await zfsdev('snapshot', 'list', name)).stdout).toMatch(/^at-work /m);
    expect(await zfsdev('snapshot', 'delete', name, 'at-work')).toMatchObject({ exitCode: 0 });
    expect((await zfsdev('snapshot', 'list', name)).stdout).not.toContain('at-work');
  });

  it('gives room back by trim, stops, and does so by compact', async () => {
    await guest('sh', '-c', 'head -c 64M /dev/urandom >/root/junk; sync');
    const { actualBytes: full } = await diskOf(zfsdev, name);
    await guest('rm', '/root/junk');
    const trim = await zfsdev('trim', name);
    expect({ exitCode: trim.exitCode, stderr: trim.stderr }).toMatchObject({ exitCode: 0 });
    expect((await diskOf(zfsdev, name)).actualBytes).toBeLessThan(full - 32 * 2 ** 20);
    await guest('sh', '-c', 'echo kept >/testpool/file; zpool sync');
    expect(await zfsdev('stop', name, ...patience)).toMatchObject({ exitCode: 0 });
    expect(JSON.parse((await zfsdev('inspect', name, '--json')).stdout)).toMatchObject({ status: 'stopped' });
    const before = await diskOf(zfsdev, name);
    const compact = await zfsdev('compact', name);
    expect({ exitCode: compact.exitCode, stderr: compact.stderr }).toMatchObject({ exitCode: 0 });
    const after = await diskOf(zfsdev, name);
    expect(after.path).toBe(before.path);
    expect(after.actualBytes).toBeLessThanOrEqual(before.actualBytes);
  });

  it('starts again with the pool as it was', async () => {
    expect(await zfsdev('start', name, ...patience)).toMatchObject({ exitCode: 0 });
    expect(await guest('zpool', 'list', '-H', '-o', 'health', 'testpool')).toBe('ONLINE');
    expect(await guest('cat', '/testpool/file')).toBe('kept');
  });

  it('is deleted with all that it had', async () => {
    expect(await zfsdev('delete', '--force', name)).toMatchObject({ exitCode: 0 });
    await expectNothingLeft(home);
  });
});

describe('a disposable machine', () => {
  it('runs a command, passes its exit code through, and leaves nothing', async () => {
    const words = ['sh', '-c', 'zpool list -H -o health testpool; exit 3'];
    const run = await zfsdev('run', 'zfs-test', '--driver', 'lima', ...patience, '--', ...words);
    expect({ exitCode: run.exitCode, stdout: run.stdout }).toEqual({ exitCode: 3, stdout: 'ONLINE' });
    await expectNothingLeft(home);
  });
});
