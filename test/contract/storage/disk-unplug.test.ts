import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attachDisk, detachDisk } from '../../../src/storage/disk-attach.ts';
import { removeDisk } from '../../../src/storage/disk-remove.ts';
import { name, patience, RunningMachine } from './running-machine.ts';

let machine: RunningMachine;
beforeEach(async () => {
  machine = await RunningMachine.open();
});
afterEach(() => machine.close());

describe('a disk that may be in use', () => {
  it('stays where it is if the guest can not be asked', async () => {
    await machine.add('data');
    await expect(detachDisk(machine.ctx, name, 'data', { patience, force: false })).rejects.toMatchObject({
      reason: 'guest',
      hint: expect.stringContaining('--force') as string,
    });
    expect(machine.qemu.devices.has('device-data')).toBe(true);
    expect(machine.storage()[0]).not.toHaveProperty('detached');
  });
});

describe('an unplug', () => {
  beforeEach(async () => {
    await machine.add('data');
    machine.qemu.changes.length = 0;
  });

  it('waits until the guest has let go, closes the file, and keeps the place for it', async () => {
    await expect(machine.detach('data')).resolves.toMatchObject({ changed: true, running: true });
    expect(machine.qemu.changes).toEqual(['device_del', 'blockdev-del', 'blockdev-del']);
    machine.expectBare();
    expect(machine.storage()).toMatchObject([{ name: 'data', detached: true, port: 1 }]);
    await machine.asRecorded();
    await machine.add('other');
    await attachDisk(machine.ctx, name, 'data');
    expect(machine.storage().map(({ port }) => port)).toEqual([2, 1]);
  });

  it('of a guest that never lets go ends at the deadline, with nothing lost, and is completed when it has', async () => {
    machine.qemu.guest = 'never';
    for (const time of [100, 100])
      await expect(machine.detach('data', time)).rejects.toMatchObject({
        reason: 'deadline',
        message: expect.stringContaining('is still plugged into "run"') as string,
        hint: expect.stringMatching(
          /lsblk[^]*unmount[^]*zfsdev stop run && zfsdev disk detach run data/,
        ) as string,
      });
    expect(machine.storage()[0]).not.toHaveProperty('detached');
    await expect(machine.remove('data', 100)).rejects.toMatchObject({ reason: 'deadline' });
    expect(await machine.inFolder()).toEqual(['data.qcow2']);
    // It lets go late, with nobody waiting.
    machine.qemu.devices.delete('device-data');
    await machine.detach('data');
    machine.expectBare();
    expect(machine.storage()).toMatchObject([{ detached: true }]);
  });

  it('that the guest refuses is told at once', async () => {
    machine.qemu.guest = 'refuses';
    await expect(machine.detach('data')).rejects.toMatchObject({
      reason: 'guest',
      message: expect.stringContaining('refuses') as string,
    });
    expect(machine.storage()[0]).not.toHaveProperty('detached');
  });

  it('of a device that is gone is done', async () => {
    machine.qemu.guest = 'had-gone';
    await machine.detach('data');
    machine.expectBare();
  });

  it('that is interrupted changes nothing that is written down', async () => {
    machine.qemu.guest = 'never';
    const detaching = machine.detach('data');
    detaching.catch(() => undefined);
    await expect.poll(() => machine.qemu.changes).toContain('device_del');
    machine.interrupt.abort();
    await expect(detaching).rejects.toMatchObject({ reason: 'interrupted' });
    expect(machine.storage()[0]).not.toHaveProperty('detached');
  });

  it.each([
    ['before the guest was asked', 'device_del', 'hang up before'],
    ['after the guest let go', 'device_del', 'hang up after'],
    ['before the file was closed', 'blockdev-del', 'hang up before'],
    ['after the first node', 'blockdev-del', 'hang up after'],
  ] as const)('cut off %s is completed by the same command', async (_, command, words) => {
    machine.qemu.fault = { command, words };
    await expect(machine.detach('data')).rejects.toMatchObject({ reason: 'process' });
    expect(machine.storage()[0]).not.toHaveProperty('detached');
    await machine.detach('data');
    machine.expectBare();
    expect(machine.storage()).toMatchObject([{ detached: true }]);
  });

  it('of a disk beside the board is refused, with what to do', async () => {
    const device = machine.qemu.devices.get('device-data') ?? {};
    machine.qemu.devices.set('device-data', { ...device, bus: undefined });
    await expect(machine.detach('data')).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringContaining('zfsdev stop run && zfsdev disk detach run data') as string,
    });
    expect(machine.storage()[0]).not.toHaveProperty('detached');
  });

  it('of a machine that stands still is refused, as its guest can not answer', async () => {
    machine.qemu.status = 'paused';
    await expect(machine.detach('data')).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: 'zfsdev resume run',
    });
    expect(machine.qemu.changes).toEqual([]);
  });
});

describe('a removal', () => {
  beforeEach(() => machine.add('data'));

  it('unplugs, deletes the file and forgets', async () => {
    await machine.remove('data');
    machine.expectBare();
    expect([machine.storage(), await machine.inFolder()]).toEqual([[], []]);
  });

  it('that is not wanted changes nothing', async () => {
    const asked = removeDisk(machine.ctx, name, 'data', {
      mayLose: () => Promise.resolve(false),
      patience,
      force: true,
    });
    await expect(asked).resolves.toBeUndefined();
    expect(machine.qemu.devices.has('device-data')).toBe(true);
    expect(await machine.inFolder()).toEqual(['data.qcow2']);
  });

  it('cut off after the file went is completed by the same command', async () => {
    const [disk] = machine.storage();
    await machine.remove('data');
    const spec = machine.spec();
    await machine.forgetWhatWasDone(JSON.stringify({ ...spec, storage: [{ ...disk, detached: true }] }));
    await machine.remove('data');
    expect(machine.storage()).toEqual([]);
  });
});
