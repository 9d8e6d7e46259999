import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attachDisk } from '../../../src/storage/disk-attach.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import { listDisks } from '../../../src/storage/disk-list.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { DiskDevice } from '../../../src/template/storage.ts';
import { call } from '../../support/call.ts';
import { name, RunningMachine } from './running-machine.ts';

let machine: RunningMachine;
beforeEach(async () => {
  machine = await RunningMachine.open();
});
afterEach(() => machine.close());

describe('a disk that is added to a running machine', () => {
  it('is plugged into a free port, by the arguments that it has at the next start', async () => {
    await machine.add('data');
    expect(machine.qemu.devices.get('device-data')).toEqual({
      driver: 'virtio-blk-pci',
      id: 'device-data',
      drive: 'disk-data',
      serial: 'data',
      bus: 'port1',
    });
    expect(machine.qemu.nodes.get('disk-data')).toMatchObject({
      driver: 'qcow2',
      file: 'disk-data-file',
      discard: 'unmap',
    });
    expect(machine.qemu.nodes.get('disk-data-file')).toMatchObject({
      filename: join(machine.disks, 'data.qcow2'),
    });
    expect(machine.storage()).toMatchObject([{ name: 'data', port: 1 }]);
    expect(machine.storage()[0]).not.toHaveProperty('detached');
    expect(await listDisks(machine.ctx, name)).toMatchObject({
      disks: [{ plugged: true }, { name: 'data', plugged: true }],
    });
    await machine.asRecorded();
  });

  it('takes one port each, says when all are taken, and gives its own back', async () => {
    for (const disk of ['a', 'b', 'c', 'd']) await machine.add(disk);
    await expect(machine.add('e')).rejects.toMatchObject({
      reason: 'wrong-state',
      message: expect.stringContaining('all of its 4 ports are taken (a, b, c, d)') as string,
      hint: expect.stringContaining('zfsdev stop run && ') as string,
    });
    expect(await machine.inFolder()).toEqual(['a.qcow2', 'b.qcow2', 'c.qcow2', 'd.qcow2']);
    await machine.detach('b');
    await machine.add('e');
    expect(machine.storage().map(({ name: disk, port }) => [disk, port])).toContainEqual(['e', 2]);
    await machine.asRecorded();
  });

  it.each(['sata', 'ide'])('is refused on %s, with both ways out', async (bus) => {
    await expect(machine.add('data', { size: '8MiB', interface: bus })).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringMatching(/zfsdev stop run && [^]*--interface virtio/) as string,
    });
    expect(machine.qemu.changes).toEqual([]);
    expect(machine.storage()).toEqual([]);
  });

  it('is refused on scsi where there is no controller, and plugged in by number where there is', async () => {
    await expect(machine.add('data', { size: '8MiB', interface: 'scsi' })).rejects.toMatchObject({
      reason: 'wrong-state',
    });
    expect(await machine.inFolder()).toEqual([]);
    machine.qemu.devices.set('scsi0', { driver: 'virtio-scsi-pci' });
    machine.qemu.devices.set('other', { driver: 'scsi-hd', bus: 'scsi0.0', 'scsi-id': 0 });
    await machine.add('data', { size: '8MiB', interface: 'scsi' });
    expect(machine.qemu.devices.get('device-data')).toMatchObject({ bus: 'scsi0.0', 'scsi-id': 1 });
    expect(machine.storage()).toMatchObject([{ port: 1 }]);
    await machine.asRecorded();
  });

  it('of no interface is a node, and no device', async () => {
    await machine.add('data', { size: '8MiB', interface: 'none' });
    expect(machine.qemu.devices.has('device-data')).toBe(false);
    expect(machine.qemu.nodes.has('disk-data')).toBe(true);
    await machine.detach('data');
    machine.expectBare();
  });

  it('takes its secret along, and leaves none behind', async () => {
    const passphraseFile = join(machine.ctx.folder, 'secret');
    await writeFile(passphraseFile, 'sesame', { mode: 0o600 });
    await machine.add('data', { size: '8MiB', passphraseFile });
    expect([...machine.qemu.objects.keys()]).toEqual(['disk-data-secret']);
    await machine.remove('data');
    machine.expectBare();
  });
});

describe('a plug that goes wrong', () => {
  it.each(['blockdev-add', 'device_add'])(
    'at %s leaves nothing, neither in QEMU nor on the host',
    async (command) => {
      machine.qemu.fault = { command, words: 'no such luck' };
      await expect(machine.add('data')).rejects.toMatchObject({
        reason: 'process',
        message: expect.stringContaining('no such luck') as string,
      });
      machine.expectBare();
      expect(machine.storage()).toEqual([]);
      expect(await machine.inFolder()).toEqual([]);
      await machine.add('data');
      await machine.asRecorded();
    },
  );

  it('whose answer is lost takes no file from under the guest, and is completed by the same command', async () => {
    machine.qemu.fault = { command: 'device_add', words: 'hang up after' };
    await expect(machine.add('data')).rejects.toMatchObject({ reason: 'process' });
    expect(machine.qemu.devices.has('device-data')).toBe(true);
    expect(await machine.inFolder()).toEqual(['data.qcow2']);
    expect(machine.storage()).toMatchObject([{ name: 'data', detached: true }]);
    await machine.add('data');
    expect(machine.storage()[0]).not.toHaveProperty('detached');
    await machine.asRecorded();
  });

  // What a killed zfsdev leaves is what QEMU has done until then, and what was written down last.
  it.each([
    ['after the file', 'blockdev-add', 'hang up before'],
    ['between the nodes and the device', 'device_add', 'hang up before'],
    ['after the device', 'device_add', 'hang up after'],
  ] as const)('cut off %s is completed by the same command', async (_, command, words) => {
    machine.qemu.fault = { command, words };
    await expect(machine.add('data')).rejects.toMatchObject({ reason: 'process' });
    // The undo of a killed one does not run: its record and file are there.
    const half: DiskDevice = { ...diskFromOptions('data', { size: '8MiB' }), detached: true };
    const spec = machine.spec();
    await machine.forgetWhatWasDone(JSON.stringify({ ...spec, storage: [half] }));
    await mkdir(machine.disks, { recursive: true });
    if ((await machine.inFolder()).length === 0)
      call('qemu-img', 'create', '-q', '-f', 'qcow2', join(machine.disks, 'data.qcow2'), '8M');
    await machine.add('data');
    expect(machine.qemu.devices.get('device-data')).toMatchObject({ drive: 'disk-data', bus: 'port1' });
    expect(machine.storage()).toMatchObject([{ name: 'data', port: 1 }]);
    expect(machine.storage()[0]).not.toHaveProperty('detached');
    await machine.asRecorded();
  });

  it('and is not written down is told before memory is saved that could never be loaded', async () => {
    const before = readFileSync(machine.specFile, 'utf8');
    await machine.add('data');
    const added = machine.storage().map((disk) => ({ ...disk, detached: true }));
    await machine.forgetWhatWasDone(JSON.stringify({ ...(JSON.parse(before) as Spec), storage: added }));
    await expect(machine.asRecorded()).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringContaining('zfsdev disk attach run data') as string,
    });
    await attachDisk(machine.ctx, name, 'data');
    await machine.asRecorded();
  });
});
