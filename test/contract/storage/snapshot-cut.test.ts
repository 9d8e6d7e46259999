import { rm } from 'node:fs/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { bytes, MiB } from '../../../src/core/bytes.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { attachDisk, detachDisk } from '../../../src/storage/disk-attach.ts';
import { removeDisk } from '../../../src/storage/disk-remove.ts';
import { resizeDisk } from '../../../src/storage/disk-resize.ts';
import { deleteSnapshot } from '../../../src/storage/snapshot-delete.ts';
import { loadSnapshot } from '../../../src/storage/snapshot-load.ts';
import { resume } from '../../../src/vm/lifecycle.ts';
import {
  atSteps,
  both,
  ctx,
  cutAt,
  cutPower,
  disks,
  expectNext,
  expectRefusedStart,
  expectSound,
  expectTruth,
  find,
  holding,
  killAfter,
  listed,
  load,
  name,
  partsOf,
  qemu,
  running,
  take,
} from './cut-machine.ts';

describe('a set that is being taken live', () => {
  it.each([
    ...atSteps(['transaction', 'transaction disk0', 'transaction disk-data', 'transaction done']),
    ...atSteps(['snapshot-save disk0', 'snapshot-save done']),
  ])('after "%s", with the power of %s cut, is whole or nothing', async (step, victim) => {
    const memory = step.startsWith('snapshot-save') ? ['--memory'] : ['--live'];
    await cutAt(step, victim, 'create', name, 'odd', ...memory, '--description', 'why');
    await expectTruth();
    if (victim === 'qemu') expect(await find('odd')).toBeUndefined();
    await expectNext();
    const odd = await find('odd');
    if (odd) {
      expect(odd).toMatchObject({ lost: [], description: 'why' });
      expect(partsOf(odd)).toEqual(both);
    }
    // Whole wherever QEMU came to its end, unless there was somebody to undo it.
    const throughWith = ['transaction disk-data', 'transaction done', 'snapshot-save done'];
    const isKept = victim === 'zfsdev' || (victim === 'both' && throughWith.includes(step));
    expect(odd !== undefined).toBe(isKept);
    await cutPower();
    expect(holding(2)).toEqual(both);
    await load('first');
    expect(holding(1)).toEqual(both);
    await load(odd ? 'odd' : 'next');
    expect(holding(2)).toEqual(both);
    expectSound();
  });
});

describe('a set that is being deleted live', () => {
  it.each(atSteps(['snapshot-delete', 'snapshot-delete disk0', 'snapshot-delete done']))(
    'after "%s", with the power of %s cut, is told as what is left, and deleted by the same command',
    async (step, victim) => {
      await take('odd');
      qemu.steps.length = 0;
      await cutAt(step, victim, 'delete', name, 'odd');
      await expectTruth();
      const left = await find('odd');
      if (left) {
        if (left.lost.length > 0) await expect(load('odd')).rejects.toThrow('no longer whole');
        await deleteSnapshot(ctx, name, 'odd', []);
      }
      expect(await find('odd')).toBeUndefined();
      await expectNext();
      await cutPower();
      expect(holding(2)).toEqual(both);
      expectSound();
    },
  );
});

describe('a set that is being loaded with its memory', () => {
  it.each(
    atSteps([
      'stop',
      'transaction disk0',
      'transaction done',
      'snapshot-load',
      'snapshot-load disk0',
      'snapshot-load disk-data',
      'snapshot-delete disk0',
      'snapshot-delete done',
    ]),
  )('after "%s", with the power of %s cut, leaves all disks at one moment', async (step, victim) => {
    qemu.steps.length = 0;
    await cutAt(step, victim, 'load', name, 'first');
    await expectTruth();
    if (running) await resume(ctx, name);
    else await expectRefusedStart();
    const now = holding(2).length > 0 ? 2 : 1;
    expect(holding(now)).toEqual(both);
    expect((await listed()).map((each) => each.name)).toEqual(['first']);
    await expectNext();
    await cutPower();
    await load('first');
    expect(holding(1)).toEqual(both);
    expectSound();
  });

  it('and fails after zfsdev was killed does not run on with half of it, and boots as it was', async () => {
    qemu.jobFails = 'Error -22 while loading VM state';
    await cutAt('snapshot-load', 'zfsdev', 'load', name, 'first');
    const refused = {
      reason: 'wrong-state',
      hint: expect.stringContaining('zfsdev stop --force cut') as string,
    };
    await expect(resume(ctx, name)).rejects.toMatchObject(refused);
    await expect(take('next')).rejects.toMatchObject(refused);
    await expect(resizeDisk(ctx, name, 'data', bytes(16 * MiB), false)).rejects.toMatchObject(refused);
    await cutPower();
    await take('next');
    expect(holding(2)).toEqual(both);
    expect((await listed()).map((each) => each.name)).toEqual(['first', 'next']);
  });

  it('has the time to be ready only once its memory is back', async () => {
    const asked: string[] = [];
    await loadSnapshot(ctx, name, 'first', {
      disks: [],
      noMemory: false,
      overcommit: false,
      mayRestart: () => Promise.resolve(false),
      deadline: () => {
        asked.push(qemu.steps.at(-1) ?? '');
        return deadlineIn(60_000);
      },
    });
    expect(asked).toEqual(['cont']);
    expect(holding(1)).toEqual(both);
  });
});

describe('a set of a stopped machine', () => {
  beforeEach(() => cutPower());

  it.each([1, 2])(
    'that is being taken and is cut off after %d disks is whole or nothing',
    async (changes) => {
      await killAfter(changes, 'create', name, 'odd', '--description', 'why');
      await expectNext();
      const odd = await find('odd');
      expect(odd?.description).toBe(changes === 1 ? undefined : 'why');
      expect(partsOf(odd)).toEqual(changes === 1 ? [] : both);
      expect(holding(2)).toEqual(both);
      expectSound();
    },
  );

  it.each([1, 2, 3, 4, 5, 6])(
    'that is being loaded and is cut off after %d changes is at one moment once it starts',
    async (changes) => {
      await killAfter(changes, 'load', name, 'first', '--no-memory');
      await expectRefusedStart();
      expect((await listed()).map((each) => each.name)).toEqual(['first']);
      // Both are as they were until both are back, and what that took is being cleared away.
      expect(holding(changes < 5 ? 2 : 1)).toEqual(both);
      await expectNext();
      await load('first');
      expect(holding(1)).toEqual(both);
      expectSound();
    },
  );

  it('that is being loaded and is cut off is at one moment before a disk of it is unplugged', async () => {
    await killAfter(4, 'load', name, 'first', '--no-memory');
    await detachDisk(ctx, name, 'data', { patience: 60_000, force: false });
    expect(holding(2)).toEqual(both);
    await attachDisk(ctx, name, 'data');
    expect((await listed()).map((each) => each.name)).toEqual(['first']);
    await expectNext();
  });

  it('does not keep a disk whose file is gone from being taken away', async () => {
    await killAfter(1, 'create', name, 'odd');
    for (const { path } of disks.filter((disk) => disk.name === 'data')) await rm(path);
    await expect(take('next')).rejects.toMatchObject({ reason: 'files' });
    await removeDisk(ctx, name, 'data', {
      mayLose: () => Promise.resolve(true),
      patience: 60_000,
      force: false,
    });
    await take('next');
    expect(partsOf(await find('next'))).toEqual(['root']);
  });

  it('that is being deleted and is cut off after the first disk tells that, and is deleted by the same command', async () => {
    await killAfter(1, 'delete', name, 'first');
    expect(await find('first')).toMatchObject({ lost: ['root'] });
    await expect(load('first')).rejects.toThrow('no longer whole');
    await deleteSnapshot(ctx, name, 'first', []);
    await take('next');
    expect((await listed()).map((each) => each.name)).toEqual(['next']);
    expect(holding(2)).toEqual(both);
    expectSound();
  });
});
