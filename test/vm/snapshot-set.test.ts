import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseName } from '../../src/core/names.ts';
import { qemuSnapshots } from '../../src/vm/qemu-snapshot.ts';
import type { SnapshotDisk } from '../../src/vm/snapshot-disks.ts';
import type { SnapshotMachine } from '../../src/vm/snapshot-driver.ts';
import { readSnapshots, requireSnapshot } from '../../src/vm/snapshot-list.ts';
import { readInstance } from '../../src/vm/store.ts';
import { callIn } from '../support/call.ts';
import { testContext, type TestContext } from '../support/context.ts';
import { stoppedInstance } from '../support/instances.ts';

const name = parseName('set');
let ctx: TestContext;
let disks: SnapshotDisk[];
let machine: SnapshotMachine;

const call = (program: string, ...args: string[]): string => callIn(ctx.folder, program, ...args);

/** A set of two disks, each with a pattern of its own. */
beforeEach(async () => {
  ctx = await testContext();
  const { folder } = await stoppedInstance(ctx.paths, name);
  disks = ['root', 'data'].map((disk, i) => ({
    name: disk,
    path: join(folder, `${disk}.qcow2`),
    node: `disk${i}`,
  }));
  for (const { path } of disks) call('qemu-img', 'create', '-q', '-f', 'qcow2', path, '64M');
  machine = { instance: readInstance(ctx, name), running: false, disks };
  write(1);
});
afterEach(async () => {
  await stop();
  await ctx.remove();
});

function write(pattern: number): void {
  for (const { path } of disks) call('qemu-io', '-c', `write -P ${pattern} 0 1M`, path);
}

function holding(pattern: number): string[] {
  const reads = ({ path }: SnapshotDisk): string => call('qemu-io', '-c', `read -P ${pattern} 0 1M`, path);
  return disks.filter((disk) => !reads(disk).includes('failed')).map((disk) => disk.name);
}

/** Where each snapshot is, by its name. */
async function places(): Promise<Record<string, string[]>> {
  const found = await readSnapshots(ctx, name, disks);
  return Object.fromEntries(found.map((each) => [each.name, each.parts.map((part) => part.disk)]));
}

/** A QEMU that has these disks and a raw one, and runs nothing on them. */
function start(): void {
  const { pid, qmp, folder } = ctx.paths.instance(name);
  const raw = join(folder, 'raw.img');
  call('qemu-img', 'create', '-q', '-f', 'raw', raw, '1M');
  const json = (value: object): string[] => ['-blockdev', JSON.stringify(value)];
  call(
    'qemu-system-x86_64',
    ...['-S', '-nodefaults', '-display', 'none', '-machine', 'q35,accel=tcg', '-m', '16M'],
    ...disks.flatMap(({ path, node }) => [
      ...json({ driver: 'qcow2', 'node-name': node, file: { driver: 'file', filename: path } }),
      ...['-device', `virtio-blk-pci,drive=${node}`],
    ]),
    ...json({ driver: 'raw', 'node-name': 'raw0', file: { driver: 'file', filename: raw } }),
    ...['-device', 'virtio-blk-pci,drive=raw0'],
    ...['-chardev', `socket,id=qmp,path=${qmp.replaceAll(',', ',,')},server=on,wait=off`],
    ...['-mon', 'chardev=qmp,mode=control', '-pidfile', pid, '-daemonize'],
  );
  machine = { ...machine, running: true };
}

async function stop(): Promise<void> {
  const pid = Number(await readFile(ctx.paths.instance(name).pid, 'utf8').catch(() => ''));
  if (pid > 1) process.kill(pid, 'SIGKILL');
  machine = { ...machine, running: false };
}

it('a set is taken of a running machine on all disks at once, beside a raw one, or on none', async () => {
  start();
  const snapshots = qemuSnapshots(ctx);
  await snapshots.take(machine, 'is', false);
  expect(await places()).toEqual({ is: ['root', 'data'] });
  const [, data] = disks;
  if (!data) throw new Error('no second disk');
  await snapshots.take({ ...machine, disks: [data] }, 'one', false);
  await expect(snapshots.take(machine, 'one', false)).rejects.toThrow('already exists');
  expect(await places()).toEqual({ is: ['root', 'data'], one: ['data'] });
  for (const each of await readSnapshots(ctx, name, disks)) await snapshots.drop(machine, each);
  expect(await places()).toEqual({});
});

it('a set of a stopped machine is gone back to as a whole, or not at all', async () => {
  const snapshots = qemuSnapshots(ctx);
  await snapshots.take(machine, 'first', false);
  write(2);
  const found = requireSnapshot(name, await readSnapshots(ctx, name, disks), 'first');
  const broken = {
    ...found,
    parts: found.parts.map((part) => (part.disk === 'data' ? { ...part, id: '77' } : part)),
  };
  await expect(snapshots.revert(machine, broken)).rejects.toMatchObject({ reason: 'process' });
  expect(holding(2)).toEqual(['root', 'data']);
  await snapshots.revert(machine, found);
  expect(holding(1)).toEqual(['root', 'data']);
  expect(await places()).toEqual({ first: ['root', 'data'] });
});

it('what a set left on some disks is forgotten, and clusters that belong to nothing are freed', async () => {
  const snapshots = qemuSnapshots(ctx);
  const [first] = disks;
  if (!first) throw new Error('no disk');
  call('qemu-img', 'snapshot', '-c', 'half', first.path);
  await snapshots.forget(machine, 'half');
  expect(await places()).toEqual({});
  for (const { path } of disks) expect(call('qemu-img', 'check', path)).toContain('No errors');
});
