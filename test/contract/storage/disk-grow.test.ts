import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytes, MiB } from '../../../src/core/bytes.ts';
import { resizeDisk } from '../../../src/storage/disk-resize.ts';
import { readInstance } from '../../../src/vm/store.ts';
import { name, RunningMachine } from './running-machine.ts';

let machine: RunningMachine;
beforeEach(async () => {
  machine = await RunningMachine.open();
});
afterEach(() => machine.close());

describe('a resize of a running machine', () => {
  it('is QEMU’s to do, which would shrink it without a word', async () => {
    await machine.add('data');
    machine.qemu.sizes.set('disk-data', 8 * MiB);
    await expect(resizeDisk(machine.ctx, name, 'data', bytes(4 * MiB), false)).rejects.toMatchObject({
      reason: 'usage',
    });
    expect(machine.qemu.changes).not.toContain('block_resize');
    await expect(resizeDisk(machine.ctx, name, 'data', bytes(16 * MiB), false)).resolves.toMatchObject({
      before: 8 * MiB,
      after: 16 * MiB,
      live: true,
    });
    expect(machine.qemu.sizes.get('disk-data')).toBe(16 * MiB);
    expect(machine.storage()).toMatchObject([{ size: 16 * MiB }]);
  });

  it('that QEMU refuses is not written down', async () => {
    await machine.add('data');
    machine.qemu.sizes.set('disk-data', 8 * MiB);
    machine.qemu.fault = { command: 'block_resize', words: 'No space left on device' };
    await expect(resizeDisk(machine.ctx, name, 'data', bytes(16 * MiB), false)).rejects.toMatchObject({
      reason: 'process',
    });
    expect(machine.storage()).toMatchObject([{ size: 8 * MiB }]);
  });

  it('of root is seen by the guest at once', async () => {
    machine.qemu.sizes.set('disk0', 64 * MiB);
    await expect(resizeDisk(machine.ctx, name, 'root', bytes(128 * MiB), false)).resolves.toMatchObject({
      live: true,
      isRoot: true,
    });
    expect(machine.qemu.sizes.get('disk0')).toBe(128 * MiB);
    expect(readInstance(machine.ctx, name).spec.disk).toBe(128 * MiB);
  });
});
