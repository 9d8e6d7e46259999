import { readFileSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MiB, bytes } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { connectQmp } from '../../../src/qemu/qmp.ts';
import { addDisk } from '../../../src/storage/disk-add.ts';
import { attachDisk, detachDisk } from '../../../src/storage/disk-attach.ts';
import { diskFromOptions, type DiskOptions } from '../../../src/storage/disk-definition.ts';
import { listDisks } from '../../../src/storage/disk-list.ts';
import { removeDisk } from '../../../src/storage/disk-remove.ts';
import { resizeDisk } from '../../../src/storage/disk-resize.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { DiskDevice } from '../../../src/template/storage.ts';
import { requireRecorded } from '../../../src/vm/disk-plan.ts';
import { readInstance } from '../../../src/vm/store.ts';
import { fakeQemu, type FakeQemu } from '../../fakes/qemu-disks.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { processOf } from '../../support/running.ts';

const name = parseName('run');
/** For a guest that answers; one that does not is given less. */
const patience = 60_000;

let ctx: TestContext;
let qemu: FakeQemu;
let interrupt: AbortController;
let end: () => Promise<void>;
let specFile: string;
let disks: string;

beforeEach(async () => {
  interrupt = new AbortController();
  ctx = await testContext({ env: { ZFSDEV_RESERVE: '1B' }, signal: interrupt.signal });
  const paths = await stoppedInstance(ctx.paths, name, { diskBound: 64 * MiB });
  call('qemu-img', 'create', '-q', '-f', 'qcow2', paths.disk, '64M');
  [specFile, disks] = [paths.spec, paths.disks];
  end = await processOf(paths);
  qemu = await fakeQemu(paths.qmp);
});
afterEach(async () => {
  await end();
  await qemu.close();
  await ctx.remove();
  qemu.verify();
});

function add(disk: string, options: DiskOptions = { size: '8MiB' }): ReturnType<typeof addDisk> {
  return addDisk(ctx, name, diskFromOptions(disk, options), {
    command: 'zfsdev disk add ...',
    overcommit: false,
  });
}

const detach = (disk: string, time = patience): ReturnType<typeof detachDisk> =>
  detachDisk(ctx, name, disk, { patience: time, force: true });
const remove = (disk: string, time = patience): ReturnType<typeof removeDisk> =>
  removeDisk(ctx, name, disk, { mayLose: () => Promise.resolve(true), patience: time, force: true });

const storage = (): DiskDevice[] =>
  ((JSON.parse(readFileSync(specFile, 'utf8')) as Spec).storage ?? []) as DiskDevice[];
const inFolder = async (): Promise<string[]> => (await readdir(disks).catch(() => [])).sort();

/** Nothing of the disk is in QEMU, and everything else as it was. */
function expectBare(): void {
  expect([...qemu.devices.keys()]).toEqual(['port1', 'port2', 'port3', 'port4', 'blk0']);
  expect([...qemu.nodes.keys()]).toEqual(['disk0-file', 'disk0']);
  expect([...qemu.objects.keys()]).toEqual([]);
}

async function asRecorded(): Promise<void> {
  const { qmp: socket } = ctx.paths.instance(name);
  const qmp = await connectQmp(socket, { deadline: deadlineIn(patience), signal: ctx.signal });
  try {
    await requireRecorded(ctx, qmp, readInstance(ctx, name));
  } finally {
    qmp.close();
  }
}

/** As a zfsdev that is killed leaves it: neither undo nor record. */
async function forgetWhatWasDone(before: string): Promise<void> {
  await writeFile(specFile, before);
}

describe('a disk that may be in use', () => {
  it('stays where it is if the guest can not be asked', async () => {
    await add('data');
    await expect(detachDisk(ctx, name, 'data', { patience, force: false })).rejects.toMatchObject({
      reason: 'guest',
      hint: expect.stringContaining('--force') as string,
    });
    expect(qemu.devices.has('device-data')).toBe(true);
    expect(storage()[0]).not.toHaveProperty('detached');
  });
});

describe('a disk that is added to a running machine', () => {
  it('is plugged into a free port, by the arguments that it has at the next start', async () => {
    await add('data');
    expect(qemu.devices.get('device-data')).toEqual({
      driver: 'virtio-blk-pci',
      id: 'device-data',
      drive: 'disk-data',
      serial: 'data',
      bus: 'port1',
    });
    expect(qemu.nodes.get('disk-data')).toMatchObject({
      driver: 'qcow2',
      file: 'disk-data-file',
      discard: 'unmap',
    });
    expect(qemu.nodes.get('disk-data-file')).toMatchObject({ filename: join(disks, 'data.qcow2') });
    expect(storage()).toMatchObject([{ name: 'data', port: 1 }]);
    expect(storage()[0]).not.toHaveProperty('detached');
    expect(await listDisks(ctx, name)).toMatchObject({
      disks: [{ plugged: true }, { name: 'data', plugged: true }],
    });
    await asRecorded();
  });

  it('takes one port each, says when all are taken, and gives its own back', async () => {
    for (const disk of ['a', 'b', 'c', 'd']) await add(disk);
    await expect(add('e')).rejects.toMatchObject({
      reason: 'wrong-state',
      message: expect.stringContaining('all of its 4 ports are taken (a, b, c, d)') as string,
      hint: expect.stringContaining('zfsdev stop run && ') as string,
    });
    expect(await inFolder()).toEqual(['a.qcow2', 'b.qcow2', 'c.qcow2', 'd.qcow2']);
    await detach('b');
    await add('e');
    expect(storage().map(({ name: disk, port }) => [disk, port])).toContainEqual(['e', 2]);
    await asRecorded();
  });

  it.each(['sata', 'ide'])('is refused on %s, with both ways out', async (bus) => {
    await expect(add('data', { size: '8MiB', interface: bus })).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringMatching(/zfsdev stop run && [^]*--interface virtio/) as string,
    });
    expect(qemu.changes).toEqual([]);
    expect(storage()).toEqual([]);
  });

  it('is refused on scsi where there is no controller, and plugged in by number where there is', async () => {
    await expect(add('data', { size: '8MiB', interface: 'scsi' })).rejects.toMatchObject({
      reason: 'wrong-state',
    });
    expect(await inFolder()).toEqual([]);
    qemu.devices.set('scsi0', { driver: 'virtio-scsi-pci' });
    qemu.devices.set('other', { driver: 'scsi-hd', bus: 'scsi0.0', 'scsi-id': 0 });
    await add('data', { size: '8MiB', interface: 'scsi' });
    expect(qemu.devices.get('device-data')).toMatchObject({ bus: 'scsi0.0', 'scsi-id': 1 });
    expect(storage()).toMatchObject([{ port: 1 }]);
    await asRecorded();
  });

  it('of no interface is a node, and no device', async () => {
    await add('data', { size: '8MiB', interface: 'none' });
    expect(qemu.devices.has('device-data')).toBe(false);
    expect(qemu.nodes.has('disk-data')).toBe(true);
    await detach('data');
    expectBare();
  });

  it('takes its secret along, and leaves none behind', async () => {
    const passphraseFile = join(ctx.folder, 'secret');
    await writeFile(passphraseFile, 'sesame', { mode: 0o600 });
    await add('data', { size: '8MiB', passphraseFile });
    expect([...qemu.objects.keys()]).toEqual(['disk-data-secret']);
    await remove('data');
    expectBare();
  });
});

describe('a plug that goes wrong', () => {
  it.each(['blockdev-add', 'device_add'])(
    'at %s leaves nothing, neither in QEMU nor on the host',
    async (command) => {
      qemu.fault = { command, words: 'no such luck' };
      await expect(add('data')).rejects.toMatchObject({
        reason: 'process',
        message: expect.stringContaining('no such luck') as string,
      });
      expectBare();
      expect(storage()).toEqual([]);
      expect(await inFolder()).toEqual([]);
      await add('data');
      await asRecorded();
    },
  );

  // What a killed zfsdev leaves is what QEMU has done until then, and what was written down last.
  it.each([
    ['after the file', 'blockdev-add', 'hang up before'],
    ['between the nodes and the device', 'device_add', 'hang up before'],
    ['after the device', 'device_add', 'hang up after'],
  ] as const)('cut off %s is completed by the same command', async (_, command, words) => {
    qemu.fault = { command, words };
    await expect(add('data')).rejects.toMatchObject({ reason: 'process' });
    // The undo of a killed one does not run: its record and file are there.
    const half: DiskDevice = { ...diskFromOptions('data', { size: '8MiB' }), detached: true };
    const spec = JSON.parse(readFileSync(specFile, 'utf8')) as Spec;
    await forgetWhatWasDone(JSON.stringify({ ...spec, storage: [half] }));
    await mkdir(disks, { recursive: true });
    if ((await inFolder()).length === 0)
      call('qemu-img', 'create', '-q', '-f', 'qcow2', join(disks, 'data.qcow2'), '8M');
    await add('data');
    expect(qemu.devices.get('device-data')).toMatchObject({ drive: 'disk-data', bus: 'port1' });
    expect(storage()).toMatchObject([{ name: 'data', port: 1 }]);
    expect(storage()[0]).not.toHaveProperty('detached');
    await asRecorded();
  });

  it('and is not written down is told before memory is saved that could never be loaded', async () => {
    const before = readFileSync(specFile, 'utf8');
    await add('data');
    const added = storage().map((disk) => ({ ...disk, detached: true }));
    await forgetWhatWasDone(JSON.stringify({ ...(JSON.parse(before) as Spec), storage: added }));
    await expect(asRecorded()).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringContaining('zfsdev disk attach run data') as string,
    });
    await attachDisk(ctx, name, 'data');
    await asRecorded();
  });
});

describe('an unplug', () => {
  beforeEach(async () => {
    await add('data');
    qemu.changes.length = 0;
  });

  it('waits until the guest has let go, closes the file, and keeps the place for it', async () => {
    await expect(detach('data')).resolves.toMatchObject({ changed: true, running: true });
    expect(qemu.changes).toEqual(['device_del', 'blockdev-del', 'blockdev-del']);
    expectBare();
    expect(storage()).toMatchObject([{ name: 'data', detached: true, port: 1 }]);
    await asRecorded();
    await add('other');
    await attachDisk(ctx, name, 'data');
    expect(storage().map(({ port }) => port)).toEqual([2, 1]);
  });

  it('of a guest that never lets go ends at the deadline, with nothing lost, and is completed when it has', async () => {
    qemu.guest = 'never';
    for (const time of [100, 100])
      await expect(detach('data', time)).rejects.toMatchObject({
        reason: 'deadline',
        message: expect.stringContaining('is still plugged into "run"') as string,
        hint: expect.stringMatching(
          /lsblk[^]*unmount[^]*zfsdev stop run && zfsdev disk detach run data/,
        ) as string,
      });
    expect(storage()[0]).not.toHaveProperty('detached');
    await expect(remove('data', 100)).rejects.toMatchObject({ reason: 'deadline' });
    expect(await inFolder()).toEqual(['data.qcow2']);
    // It lets go late, with nobody waiting.
    qemu.devices.delete('device-data');
    await detach('data');
    expectBare();
    expect(storage()).toMatchObject([{ detached: true }]);
  });

  it('that the guest refuses is told at once', async () => {
    qemu.guest = 'refuses';
    await expect(detach('data')).rejects.toMatchObject({
      reason: 'guest',
      message: expect.stringContaining('refuses') as string,
    });
    expect(storage()[0]).not.toHaveProperty('detached');
  });

  it('of a device that is gone is done', async () => {
    qemu.guest = 'had-gone';
    await detach('data');
    expectBare();
  });

  it('that is interrupted changes nothing that is written down', async () => {
    qemu.guest = 'never';
    const detaching = detach('data');
    detaching.catch(() => undefined);
    await expect.poll(() => qemu.changes).toContain('device_del');
    interrupt.abort();
    await expect(detaching).rejects.toMatchObject({ reason: 'interrupted' });
    expect(storage()[0]).not.toHaveProperty('detached');
  });

  it.each([
    ['before the guest was asked', 'device_del', 'hang up before'],
    ['after the guest let go', 'device_del', 'hang up after'],
    ['before the file was closed', 'blockdev-del', 'hang up before'],
    ['after the first node', 'blockdev-del', 'hang up after'],
  ] as const)('cut off %s is completed by the same command', async (_, command, words) => {
    qemu.fault = { command, words };
    await expect(detach('data')).rejects.toMatchObject({ reason: 'process' });
    expect(storage()[0]).not.toHaveProperty('detached');
    await detach('data');
    expectBare();
    expect(storage()).toMatchObject([{ detached: true }]);
  });

  it('of a disk beside the board is refused, with what to do', async () => {
    const device = qemu.devices.get('device-data') ?? {};
    qemu.devices.set('device-data', { ...device, bus: undefined });
    await expect(detach('data')).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringContaining('zfsdev stop run && zfsdev disk detach run data') as string,
    });
    expect(storage()[0]).not.toHaveProperty('detached');
  });

  it('of a machine that stands still is refused, as its guest can not answer', async () => {
    qemu.status = 'paused';
    await expect(detach('data')).rejects.toMatchObject({ reason: 'wrong-state', hint: 'zfsdev resume run' });
    expect(qemu.changes).toEqual([]);
  });
});

describe('a removal', () => {
  beforeEach(() => add('data'));

  it('unplugs, deletes the file and forgets', async () => {
    await remove('data');
    expectBare();
    expect([storage(), await inFolder()]).toEqual([[], []]);
  });

  it('that is not wanted changes nothing', async () => {
    const asked = removeDisk(ctx, name, 'data', {
      mayLose: () => Promise.resolve(false),
      patience,
      force: true,
    });
    await expect(asked).resolves.toBeUndefined();
    expect(qemu.devices.has('device-data')).toBe(true);
    expect(await inFolder()).toEqual(['data.qcow2']);
  });

  it('cut off after the file went is completed by the same command', async () => {
    const [disk] = storage();
    await remove('data');
    const spec = JSON.parse(readFileSync(specFile, 'utf8')) as Spec;
    await forgetWhatWasDone(JSON.stringify({ ...spec, storage: [{ ...disk, detached: true }] }));
    await remove('data');
    expect(storage()).toEqual([]);
  });
});

describe('a resize of a running machine', () => {
  it('is QEMU’s to do, which would shrink it without a word', async () => {
    await add('data');
    qemu.sizes.set('disk-data', 8 * MiB);
    await expect(resizeDisk(ctx, name, 'data', bytes(4 * MiB), false)).rejects.toMatchObject({
      reason: 'usage',
    });
    expect(qemu.changes).not.toContain('block_resize');
    await expect(resizeDisk(ctx, name, 'data', bytes(16 * MiB), false)).resolves.toMatchObject({
      before: 8 * MiB,
      after: 16 * MiB,
      live: true,
    });
    expect(qemu.sizes.get('disk-data')).toBe(16 * MiB);
    expect(storage()).toMatchObject([{ size: 16 * MiB }]);
  });

  it('that QEMU refuses is not written down', async () => {
    await add('data');
    qemu.sizes.set('disk-data', 8 * MiB);
    qemu.fault = { command: 'block_resize', words: 'No space left on device' };
    await expect(resizeDisk(ctx, name, 'data', bytes(16 * MiB), false)).rejects.toMatchObject({
      reason: 'process',
    });
    expect(storage()).toMatchObject([{ size: 8 * MiB }]);
  });

  it('of root is seen by the guest at once', async () => {
    qemu.sizes.set('disk0', 64 * MiB);
    await expect(resizeDisk(ctx, name, 'root', bytes(128 * MiB), false)).resolves.toMatchObject({
      live: true,
      isRoot: true,
    });
    expect(qemu.sizes.get('disk0')).toBe(128 * MiB);
    expect(readInstance(ctx, name).spec.disk).toBe(128 * MiB);
  });
});
