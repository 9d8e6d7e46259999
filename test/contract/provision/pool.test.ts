import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PoolSpec } from '../../../src/template/spec.ts';
import { renderPoolConf } from '../../../src/template/pool-conf.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import type { ExpectedCall } from '../../fakes/programs.ts';
import { ScriptHouse, type Ended } from './support.ts';

let house: ScriptHouse;
let pool: PoolSpec;

beforeEach(async () => {
  house = await ScriptHouse.open();
  const spec = await resolveSpec('zfs-test');
  if (!spec.pool) throw new Error('zfs-test has no pool');
  pool = spec.pool;
  await configure();
});
afterEach(() => house.close());

async function configure(layout: string = pool.layout, fileCount = pool.fileCount): Promise<void> {
  const conf = renderPoolConf({ ...pool, fileCount }).replace(/^POOL_LAYOUT=.*$/m, `POOL_LAYOUT=${layout}`);
  await writeFile(house.at('pool.conf'), conf);
}

const real = ['dirname', 'head', 'mkdir', 'mv', 'rm', 'truncate'];
const devices = ['/dev/loop0', '/dev/loop1', '/dev/loop2'];

/** What the guest's kernel, its loop devices and ZFS answer. */
interface Guest {
  /** What the pool's health is, each time it is asked for; undefined where there is no such pool. */
  readonly health: readonly (string | undefined)[];
  readonly zpool?: readonly ExpectedCall[];
  readonly losetup?: readonly ExpectedCall[];
  readonly modprobe?: Partial<ExpectedCall>;
}

async function play({ health, zpool = [], losetup = [], modprobe = {} }: Guest): Promise<void> {
  const argv = ['list', '-H', '-o', 'health', pool.name];
  const asked = health.map((answer): ExpectedCall => {
    const missing = { stderr: `cannot open '${pool.name}': no such pool\n`, exitCode: 1 };
    return { argv, times: 1, ...(answer === undefined ? missing : { stdout: `${answer}\n` }) };
  });
  await house.play(
    {
      modprobe: { calls: [{ argv: ['-a', 'zfs', 'loop'], ...modprobe }] },
      losetup: { calls: losetup },
      zpool: { calls: [...asked, ...zpool] },
      sync: { calls: [{ argv: ['-f', /./] }] },
    },
    real,
  );
}

/** The loop devices of a folder's files, which are attached already or are attached when asked. */
function loops(folder: string, count = 2, attached = false): ExpectedCall[] {
  return devices.slice(0, count).flatMap((device, i) => {
    const file = house.at(folder, `disk${i + 1}.img`);
    return [
      { argv: associated(file), stdout: attached ? `${device}\n` : '' },
      ...(attached ? [] : [{ argv: ['--find', '--show', file], stdout: `${device}\n`, times: 1 }]),
    ];
  });
}

function associated(file: string): string[] {
  return ['--noheadings', '--output', 'NAME', '--associated', file];
}

const options = ['-o', 'cachefile=none', '-o', 'ashift=12', '-o', 'autotrim=on'];
const properties = ['compression=lz4', 'xattr=sa', 'atime=off', 'quota=200M'].flatMap((one) => ['-O', one]);

function creates(layout: readonly string[] = ['mirror', '/dev/loop0', '/dev/loop1']): ExpectedCall {
  return { argv: ['create', ...options, ...properties, pool.name, ...layout], times: 1 };
}

function imports(...flags: readonly string[]): ExpectedCall {
  const from = devices.slice(0, 2).flatMap((device) => ['-d', device]);
  return { argv: ['import', '-o', 'cachefile=none', ...from, ...flags, pool.name] };
}

const syncs: ExpectedCall = { argv: ['sync', 'testpool'] };

function run(...args: readonly string[]): Promise<Ended> {
  return house.run(
    'pool.sh',
    args,
    {
      ZFSDEV_POOL_CONF: house.at('pool.conf'),
      ZFSDEV_POOL_DISKS: house.at('disks'),
      ZFSDEV_POOL_FORKED: house.at('forked'),
    },
    // The module's own settings are the host's here.
    { '/sys/module/zfs/parameters': house.at('parameters') },
  );
}

/** A pool's files, as a boot before left them. */
async function formerFiles(folder = 'disks', count = 2): Promise<void> {
  await mkdir(house.at(folder));
  for (let i = 1; i <= count; i += 1) await writeFile(house.at(folder, `disk${i}.img`), 'precious');
}

async function expectPrecious(): Promise<void> {
  for (const name of await readdir(house.at('disks')))
    expect(await readFile(house.at('disks', name), 'utf8')).toBe('precious');
  expect((await house.calls()).filter((call) => call.startsWith('zpool create'))).toEqual([]);
}

const verbs = async (): Promise<string[]> =>
  (await house.calls())
    .filter((call) => /^(zpool|sync)/.test(call))
    .map((call) => call.split(' ').slice(0, 2).join(' '));

describe('the first boot', () => {
  it('makes the pool on sparse files, which get their name only when all of it is on disk', async () => {
    await play({ health: [undefined, 'ONLINE'], losetup: loops('disks.new'), zpool: [creates(), syncs] });
    expect(await run('start')).toEqual({ exitCode: 0, stdout: 'ONLINE\n', stderr: '' });
    expect(await verbs()).toEqual([
      'zpool list',
      'zpool create',
      'zpool sync',
      'sync -f',
      'sync -f',
      'zpool list',
    ]);
    const synced = (await house.calls()).filter((call) => call.startsWith('sync'));
    expect(synced).toEqual([`sync -f ${house.at('disks.new')}`, `sync -f ${house.root}`]);
    expect((await readdir(house.at('disks'))).sort()).toEqual(['disk1.img', 'disk2.img']);
    expect(existsSync(house.at('disks.new'))).toBe(false);
    const { size, blocks } = await stat(house.at('disks/disk2.img'));
    expect({ size, blocks }).toEqual({ size: 256 * 2 ** 20, blocks: 0 });
    expect((await stat(house.at('disks'))).mode & 0o777).toBe(0o700);
  });

  it.each([
    ['stripe', 1, ['/dev/loop0']],
    ['raidz', 3, ['raidz', '/dev/loop0', '/dev/loop1', '/dev/loop2']],
  ] as const)('makes a %s of %i files', async (layout, fileCount, words) => {
    await configure(layout, fileCount);
    const losetup = loops('disks.new', fileCount);
    await play({ health: [undefined, 'ONLINE'], losetup, zpool: [creates(words), syncs] });
    expect(await run()).toMatchObject({ exitCode: 0, stdout: 'ONLINE\n' });
  });

  it('after one that a power cut ended begins anew, and frees what that one held', async () => {
    await formerFiles('disks.new');
    const [first, second] = ['disk1.img', 'disk2.img'].map((name) => house.at('disks.new', name));
    const former = [
      { argv: associated(first ?? ''), stdout: '/dev/loop7\n', times: 1 },
      { argv: ['--detach', '/dev/loop7'] },
      { argv: associated(second ?? ''), times: 1 },
    ];
    const losetup = [...former, ...loops('disks.new')];
    await play({ health: [undefined, 'ONLINE'], losetup, zpool: [creates(), syncs] });
    expect(await run('start')).toMatchObject({ exitCode: 0, stderr: '' });
    expect((await house.calls()).indexOf('losetup --detach /dev/loop7')).toBeGreaterThan(0);
    expect((await stat(house.at('disks/disk1.img'))).size).toBe(256 * 2 ** 20);
  });

  it('ends where the pool can not be made, and leaves no folder that could be taken for one', async () => {
    const fails = { ...creates(), exitCode: 1, stderr: 'cannot create: no such device\n' };
    await play({ health: [undefined], losetup: loops('disks.new'), zpool: [fails] });
    expect(await run('start')).toEqual({
      exitCode: 1,
      stdout: '',
      stderr: 'cannot create: no such device\npool.sh: zpool create failed\n',
    });
    expect(existsSync(house.at('disks'))).toBe(false);
  });

  it('ends where there is no loop device', async () => {
    const file = house.at('disks.new/disk1.img');
    const losetup = [{ argv: associated(file) }, { argv: ['--find', '--show', file], exitCode: 1 }];
    await play({ health: [undefined], losetup });
    const { exitCode, stderr } = await run('start');
    expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: `pool.sh: no loop device for ${file}\n` });
  });
});

describe('every later boot', () => {
  beforeEach(() => formerFiles());

  it('imports the pool that is there, and makes none', async () => {
    await play({ health: [undefined, 'ONLINE'], losetup: loops('disks'), zpool: [imports()] });
    expect(await run('start')).toEqual({ exitCode: 0, stdout: 'ONLINE\n', stderr: '' });
    await expectPrecious();
  });

  it('takes the loop devices that the files have already', async () => {
    await play({ health: [undefined, 'ONLINE'], losetup: loops('disks', 2, true), zpool: [imports()] });
    expect(await run('start')).toMatchObject({ exitCode: 0, stderr: '' });
  });

  it('leaves alone a pool that is imported', async () => {
    await play({ health: ['DEGRADED'] });
    expect(await run('start')).toEqual({ exitCode: 0, stdout: 'DEGRADED\n', stderr: '' });
    expect(await verbs()).toEqual(['zpool list']);
  });

  it('never makes one over files that can not be imported', async () => {
    const fails = { ...imports(), exitCode: 1, stderr: 'cannot import: I/O error\n' };
    await play({ health: [undefined], losetup: loops('disks'), zpool: [fails] });
    const { exitCode, stderr } = await run('start');
    expect(exitCode).toBe(1);
    expect(stderr).toBe(
      `cannot import: I/O error\npool.sh: zpool import of testpool from ${house.at('disks')} failed\n`,
    );
    await expectPrecious();
  });

  it('never makes one where a file is missing', async () => {
    await configure('mirror', 3);
    await play({ health: [undefined], losetup: loops('disks') });
    const { exitCode, stderr } = await run('start');
    expect({ exitCode, stderr }).toEqual({
      exitCode: 1,
      stderr: `pool.sh: ${house.at('disks/disk3.img')} is missing\n`,
    });
    await expectPrecious();
  });

  it('forces the import in a fork alone, and only the first time', async () => {
    await writeFile(house.at('forked'), '');
    await play({ health: [undefined, 'ONLINE'], losetup: loops('disks'), zpool: [imports('-f')] });
    expect(await run('start')).toMatchObject({ exitCode: 0 });
    expect(existsSync(house.at('forked'))).toBe(false);
  });
});

it('refuses a pool that is imported from files that were never finished', async () => {
  await formerFiles('disks.new');
  await play({ health: ['ONLINE'] });
  const { exitCode, stderr } = await run('start');
  expect(exitCode).toBe(1);
  expect(stderr).toContain('testpool is imported but unfinished: zpool export testpool');
});

it('has the module trim soon, as far as it can be told to', async () => {
  await mkdir(house.at('parameters'));
  await writeFile(house.at('parameters/zfs_trim_txg_batch'), '32\n');
  await play({ health: ['ONLINE'] });
  expect(await run('start')).toMatchObject({ exitCode: 0 });
  expect(await readFile(house.at('parameters/zfs_trim_txg_batch'), 'utf8')).toBe('1\n');
  expect(await readdir(house.at('parameters'))).toEqual(['zfs_trim_txg_batch']);
});

describe('what can not be', () => {
  it('no settings: no pool, and nothing is asked', async () => {
    await house.play({}, []);
    for (const verb of ['start', 'stop']) {
      const env = { ZFSDEV_POOL_CONF: house.at('nowhere') };
      const said = verb === 'start' ? 'none\n' : '';
      expect(await house.run('pool.sh', [verb], env)).toEqual({ exitCode: 0, stdout: said, stderr: '' });
    }
  });

  it.each([
    ['POOL_LAYOUT=mirror\n', 'does not set POOL_NAME'],
    ['POOL_NAME=testpool\nPOOL_LAYOUT=pyramid\n', 'POOL_LAYOUT=pyramid is none of mirror, stripe, raidz1'],
  ])('settings that are none: %j', async (text, words) => {
    await writeFile(house.at('pool.conf'), text);
    await house.play({}, []);
    const { exitCode, stderr } = await run('start');
    expect(exitCode).toBe(1);
    expect(stderr).toContain(words);
  });

  it('no module', async () => {
    await play({ health: [], modprobe: { exitCode: 1, stderr: 'modprobe: FATAL: Module zfs not found\n' } });
    expect(await run('start')).toMatchObject({
      exitCode: 1,
      stderr: 'modprobe: FATAL: Module zfs not found\npool.sh: the zfs module cannot be loaded\n',
    });
  });

  it('another word than start and stop', async () => {
    await house.play({}, []);
    expect(await run('restart')).toMatchObject({
      exitCode: 1,
      stderr: 'pool.sh: usage: pool.sh [start|stop]\n',
    });
  });
});

describe('stop', () => {
  const named = (exitCode: number): ExpectedCall => ({
    argv: ['list', '-H', '-o', 'name', 'testpool'],
    exitCode,
  });
  const exports = (exitCode: number): ExpectedCall => ({ argv: ['export', 'testpool'], exitCode });

  it.each([
    ['exports the pool', [named(0), exports(0)], ['zpool list', 'zpool export']],
    [
      'writes everything out where it is in use',
      [named(0), exports(1), syncs],
      ['zpool list', 'zpool export', 'zpool sync'],
    ],
    ['has nothing to do without one', [named(1)], ['zpool list']],
  ])('%s', async (_, zpool, called) => {
    await play({ health: [], zpool });
    expect(await run('stop')).toMatchObject({ exitCode: 0 });
    expect(await verbs()).toEqual(called);
  });
});
