import { spawnSync } from 'node:child_process';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Qcow2 } from '../../src/qemu/qcow2-header.ts';
import { heldBySnapshots } from '../../src/qemu/qcow2-snapshots.ts';
import { readDisk } from '../../src/qemu/qcow2.ts';
import { call } from '../support/call.ts';
import { ownHome, removeAll } from '../support/home.ts';
import { scriptInGuest } from '../support/in-guest.ts';

const zfsdev = ownHome();
const name = 'room';
const disk = join(zfsdev.home, 'instances', name, 'disk.qcow2');
const MiB = 2 ** 20;

beforeAll(async () => {
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
});
afterAll(() => removeAll(zfsdev));

const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);

interface Usage {
  readonly machines: readonly {
    readonly disks: readonly { readonly actualBytes: number; readonly heldBySnapshotsBytes: number }[];
    readonly guest?: { readonly rootUsedBytes: number; readonly cleanableBytes: { readonly source: number } };
    readonly reclaimBytes: { readonly trim?: number; readonly clean?: number };
  }[];
}

async function usage(): Promise<Usage['machines'][number]> {
  const { machines } = JSON.parse((await zfsdev('usage', name, '--json')).stdout) as Usage;
  const [machine] = machines;
  if (!machine) throw new Error('it is not listed');
  return machine;
}

function readQcow2(path: string): Qcow2 {
  const content = readDisk(path);
  if (content.kind !== 'qcow2') throw new Error(content.kind);
  return content.qcow2;
}

const actual = async (): Promise<number> => (await stat(disk)).blocks * 512;

describe('the room that a machine takes', () => {
  it('is told as the host has it, with what could be had back', async () => {
    await guest(
      'mkdir -p /usr/src/linux && head -c 40M /dev/urandom >/usr/src/linux/o && head -c 50M /dev/urandom >/testpool/o && sync && zpool sync',
    );
    const before = await usage();
    expect(before.disks[0]?.actualBytes).toBe(await actual());
    expect(before.guest?.cleanableBytes.source).toBeGreaterThanOrEqual(40 * MiB);
    expect(before.reclaimBytes.clean).toBeGreaterThanOrEqual(40 * MiB);
    await guest('rm /testpool/o && zpool sync');
    expect((await usage()).reclaimBytes.trim).toBeGreaterThan(60 * MiB);
  });

  it('comes back by clean, which trims: the sources, and what the pool freed on both of its disks', async () => {
    const before = await actual();
    const clean = await zfsdev('clean', name, '--json');
    const { reclaimed } = JSON.parse(clean.stdout.split('\n').at(-1) ?? '') as {
      reclaimed: { beforeBytes: number; afterBytes: number; freedBytes: number }[];
    };
    expect(reclaimed[0]?.beforeBytes).toBe(before);
    expect(reclaimed[0]?.afterBytes).toBe(await actual());
    // Of 140 MiB; trimming a pool writes of its own accord, about 15 MiB however much there was to free, and the guest's
    // own log may just be written.
    expect(reclaimed[0]?.freedBytes).toBeGreaterThan(0.75 * 140 * MiB);
    expect(await guest('ls /usr/src; zpool status -x')).toBe('all pools are healthy');
  });

  it('can be compacted only when it is stopped', async () => {
    const refused = await zfsdev('compact', name);
    expect(refused.stderr).toContain('is running');
    expect(refused.stderr).toContain(`zfsdev stop ${name} && zfsdev compact ${name}`);
    expect(refused.exitCode).toBe(4);
  });

  it('is less after compact, of the same content, on the same backing file', async () => {
    await guest('echo kept >/testpool/kept && seq 1 4000000 >/root/text && sync && zpool sync');
    expect((await zfsdev('stop', name)).exitCode).toBe(0);
    const [before, { backing }] = [await actual(), readQcow2(disk)];
    const compact = await zfsdev('compact', name);
    expect(compact.stderr).not.toMatch(/^error:/m);
    expect(compact.exitCode).toBe(0);
    expect(await actual()).toBeLessThan(before - 20 * MiB);
    expect(readQcow2(disk).backing).toBe(backing);
    expect(call('qemu-img', 'check', disk)).toContain('No errors');
    expect((await zfsdev('start', name)).exitCode).toBe(0);
    expect(await guest('cat /testpool/kept; tail -n 1 /root/text; zpool status -x')).toBe(
      'kept\n4000000\nall pools are healthy',
    );
  });

  it('counts what only snapshots hold, and compact drops them only when told', async () => {
    expect((await zfsdev('stop', name)).exitCode).toBe(0);
    call('qemu-img', 'snapshot', '-c', 'before', disk);
    expect(await heldBySnapshots(disk)).toBe(0);
    // What the snapshot holds becomes its own when the disk's own is written.
    const write = spawnSync('qemu-io', ['-c', 'write -P 7 1G 8M', disk], { encoding: 'utf8' });
    expect(write.status).toBe(0);
    call('qemu-img', 'snapshot', '-c', 'with', disk);
    call('qemu-img', 'snapshot', '-a', 'before', disk);
    const { disks } = await usage();
    expect(disks[0]?.heldBySnapshotsBytes).toBeGreaterThanOrEqual(8 * MiB);
    expect(disks[0]?.heldBySnapshotsBytes).toBeLessThan(12 * MiB);
    expect(readQcow2(disk).snapshots.map((each) => each.name)).toEqual(['before', 'with']);
    const refused = await zfsdev('compact', name);
    expect(refused.stderr).toContain('has 2 snapshots, which would be lost');
    expect(refused.exitCode).toBe(4);
    expect((await zfsdev('compact', name, '--drop-snapshots')).exitCode).toBe(0);
    expect(readQcow2(disk).snapshots).toEqual([]);
  });

  it.each(['SIGINT', 'SIGKILL'] as const)(
    'is the old disk, whole, when compact is cut off by %s',
    async (signal) => {
      const compact = zfsdev.begin('compact', name);
      await compact.until('Comparing');
      compact.kill(signal);
      await compact.result;
      expect(call('qemu-img', 'check', disk)).toContain('No errors');
      expect((await zfsdev('compact', name)).exitCode).toBe(0);
      expect(await readdir(join(disk, '..'))).not.toContain('.disk.qcow2.zfsdev-compact');
    },
  );
});
