import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readDisk } from '../../src/qemu/qcow2.ts';
import { call } from '../support/call.ts';
import { ownHome } from '../support/home.ts';
import { lifeOf } from '../support/life.ts';
import { done } from '../support/outcome.ts';
import type { Begun, Result } from '../support/zfsdev.ts';

const zfsdev = ownHome();
const name = 'cut';
const { guest } = lifeOf(zfsdev, name);
const instance = join(zfsdev.home, 'instances', name);
const disks = { root: join(instance, 'disk.qcow2'), data: join(instance, 'disks', 'data.qcow2') };

const script = (text: string): Promise<string> => guest('sh', '-ec', text);
const snapshot = (verb: string, ...args: string[]): Promise<Result> =>
  zfsdev('snapshot', verb, name, ...args);

interface Listed {
  readonly name: string;
  readonly disks: readonly string[];
  readonly lostDisks?: readonly string[];
  readonly memoryBytes: number;
}

async function listed(): Promise<Listed[]> {
  const { stdout } = await done(snapshot('list', '--json'));
  return (JSON.parse(stdout.split('\n').at(-1) ?? '') as { snapshots: Listed[] }).snapshots;
}

/** What is listed is on both disks, or says on which it isn't. */
async function names(): Promise<string[]> {
  const found = await listed();
  for (const each of found)
    expect([...each.disks, ...(each.lostDisks ?? [])].sort()).toEqual(['data', 'root']);
  return found.map((each) => each.name);
}

function inTable(disk: keyof typeof disks): string[] {
  const content = readDisk(disks[disk]);
  return content.kind === 'qcow2' ? content.qcow2.snapshots.map((each) => each.name) : [];
}

/** Cuts the power of the host, as far as the machine goes: of zfsdev, and of QEMU. */
async function cutPower(begun: Begun): Promise<void> {
  const pid = Number(await readFile(join(instance, 'qemu.pid'), 'utf8'));
  begun.kill('SIGKILL');
  process.kill(pid, 'SIGKILL');
  expect((await begun.result).exitCode).toBeNull();
  const words = (): Promise<string> => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  await expect.poll(words, { timeout: 60_000 }).toBe('');
}

/** Random data on ext4, and in a pool that is striped over both disks of the set. */
const write = (state: string): Promise<string> =>
  script(`for at in /root /set; do head -c 4M /dev/urandom >$at/data; echo ${state} >$at/state; done
    sha256sum /root/data /set/data /root/state /set/state >/root/${state}.sum; sync; zpool sync`);

/** Gives the state that the machine is at, which has to be the same everywhere. */
async function state(): Promise<string> {
  const found =
    await script(`zpool list set >/dev/null 2>&1 || zpool import -f -d /root/vdev -d /dev/disk/by-id set
    state=$(cat /root/state); sha256sum -c --quiet /root/$state.sum
    for pool in set testpool; do zpool scrub -w $pool; zpool status -p $pool | grep -q "with 0 errors"; done
    zpool status -x; echo $state`);
  const [health, at = ''] = found.split('\n');
  expect(health).toBe('all pools are healthy');
  return at;
}

function expectSound(): void {
  for (const path of Object.values(disks)) expect(call('qemu-img', 'check', path)).toContain('No errors');
}

// One machine goes through all of it; each test begins where the one before it ended.
describe('a power cut', () => {
  it('while a set is taken live leaves it whole or not there, and all that was synced', async () => {
    await done(zfsdev('up', 'zfs-test', '--name', name));
    await done(zfsdev('disk', 'add', name, 'data', '--size', '256MiB'));
    await script(`mkdir /root/vdev; truncate -s 256M /root/vdev/file
      zpool create -f -O compression=off -m /set set /root/vdev/file /dev/disk/by-id/virtio-data`);
    await write('first');
    await done(snapshot('create', 'base', '--memory'));
    await write('second');
    const create = zfsdev.begin('snapshot', 'create', name, 'odd', '--live');
    await expect.poll(() => inTable('root').includes('odd'), { timeout: 600_000, interval: 1 }).toBe(true);
    await cutPower(create);
    expect(await names()).toContain('base');
    await done(zfsdev('start', name));
    const kept = (await names()).includes('odd');
    expect([inTable('root'), inTable('data')]).toEqual(Array(2).fill(kept ? ['base', 'odd'] : ['base']));
    expect(await state()).toBe('second');
    if (kept) await done(snapshot('delete', 'odd'));
  });

  it('while its memory is saved leaves nothing of it, and the machine goes on from the set before', async () => {
    const create = zfsdev.begin('snapshot', 'create', name, 'odd', '--memory');
    await create.until('Saving the memory');
    await cutPower(create);
    await done(snapshot('load', 'base'));
    expect(await names()).toEqual(['base']);
    expect(await state()).toBe('first');
  });

  it('while memory is loaded leaves both disks at one moment', async () => {
    await write('third');
    const load = zfsdev.begin('snapshot', 'load', name, 'base');
    await load.until('Loading the memory');
    await cutPower(load);
    await names();
    await done(zfsdev('start', name));
    expect(await names()).toEqual(['base']);
    expect(['first', 'third']).toContain(await state());
    await done(snapshot('create', 'next', '--live'));
    expect(await names()).toEqual(['base', 'next']);
  });

  it('while a set is deleted tells what is left, which the same command deletes', async () => {
    const remove = zfsdev.begin('snapshot', 'delete', name, 'base');
    await expect.poll(() => inTable('root').includes('base'), { timeout: 600_000, interval: 1 }).toBe(false);
    await cutPower(remove);
    if ((await names()).includes('base')) await done(snapshot('delete', 'base'));
    expect(await names()).toEqual(['next']);
    await done(snapshot('create', 'last'));
    expect(await names()).toEqual(['next', 'last']);
    expectSound();
  });
});
