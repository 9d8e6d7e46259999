import { describe, expect, it, beforeEach } from 'vitest';
import { deleteSnapshot } from '../../../src/storage/snapshot-delete.ts';
import type { SizedSnapshot } from '../../../src/storage/snapshot-survey.ts';
import { done, refused } from '../../support/outcome.ts';
import type { Result } from '../../support/zfsdev.ts';
import {
  atSteps,
  both,
  ctx,
  cutAt,
  cutPower,
  disks,
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
  take,
  write,
  zfsdev,
} from './cut-machine.ts';

const overwrite = (...args: string[]): Promise<Result> =>
  zfsdev('snapshot', 'create', name, 'first', '--overwrite', ...args);

const names = async (): Promise<string[]> => (await listed()).map((each) => each.name);

/** What the disks call them. */
const tags = async (): Promise<string[]> => (await listed()).map((each) => each.tag);

const isWhole = (snapshot: SizedSnapshot | undefined): boolean =>
  snapshot?.lost.length === 0 && both.every((disk) => partsOf(snapshot).includes(disk));

/** Whatever was cut off, the older one is whole, or the new one is; and each is what it is listed as. */
async function expectNothingLost(): Promise<void> {
  await expectTruth();
  await take('next');
  const [first, other] = [await find('first'), await find('first.other')];
  expect([first, other].some(isWhole)).toBe(true);
  if (other) expect(isWhole(other)).toBe(true);
  await cutPower();
  if (isWhole(first)) {
    await load('first');
    // The new one has the name only where the older one is gone.
    const is = holding(2).length > 0 ? 2 : 1;
    expect(holding(is)).toEqual(both);
    if (other || first?.tag === 'first') expect(is).toBe(1);
    else expect(is).toBe(2);
  }
  if (other) {
    await deleteSnapshot(ctx, name, 'first', []);
    expect(await names()).toEqual(expect.arrayContaining(['first', 'next']));
    await load('first');
    expect(holding(2)).toEqual(both);
  }
  expectSound();
}

describe('a set that is taken in the place of another one live', () => {
  it.each([
    ...atSteps(['transaction disk0', 'transaction done', 'snapshot-delete', 'snapshot-delete disk0']),
    ...atSteps(['snapshot-delete done']),
  ])('after "%s", with the power of %s cut, leaves one of both whole', async (step, victim) => {
    qemu.steps.length = 0;
    await cutAt(step, victim, 'create', name, 'first', '--live', '--overwrite');
    await expectNothingLost();
  });

  it.each(atSteps(['snapshot-save disk0', 'snapshot-save done', 'snapshot-delete disk0']))(
    'with memory, after "%s", with the power of %s cut, leaves one of both whole',
    async (step, victim) => {
      qemu.steps.length = 0;
      await cutAt(step, victim, 'create', name, 'first', '--memory', '--overwrite');
      await expectNothingLost();
    },
  );

  it.each([['--live'], ['--memory']])('and can not be taken leaves that one as it was: %s', async (flag) => {
    const before = await find('first');
    if (flag === '--memory') qemu.jobFails = 'Error while writing VM state';
    else qemu.qemu.fault = { command: 'transaction', words: 'Failed to create snapshot' };
    await refused(overwrite(flag), flag === '--memory' ? 3 : 1);
    expect(await listed()).toEqual([before]);
    expect(before).toMatchObject({
      lost: [],
      description: 'about first',
      memory: expect.any(Number) as number,
    });
  });

  it('and can not take its name leaves both, and has it once the older one is deleted', async () => {
    qemu.qemu.fault = { command: 'snapshot-delete', words: 'Device is busy' };
    const failed = 'the new "first" is taken, and the older one could not be deleted';
    await refused(
      overwrite('--live', '--description', 'new'),
      1,
      failed,
      'zfsdev snapshot delete cut first ',
    );
    expect(await listed()).toMatchObject([
      { name: 'first', description: 'about first', lost: [] },
      { name: 'first.other', description: 'new', lost: [] },
    ]);
    await done(zfsdev('snapshot', 'delete', name, 'first'));
    expect(await listed()).toMatchObject([{ name: 'first', description: 'new', lost: [] }]);
    await cutPower();
    write(3);
    await load('first');
    expect(holding(2)).toEqual(both);
  });

  it('has its name, and may be replaced in its turn, loaded with its memory and deleted', async () => {
    await done(overwrite('--live'));
    expect([await names(), await tags()]).toEqual([['first'], ['first.other']]);
    await refused(zfsdev('snapshot', 'create', name, 'first', '--live'), 4, 'already');
    await refused(zfsdev('snapshot', 'create', name, 'first.other', '--live'), 4, 'already');
    await done(overwrite('--memory'));
    expect([await names(), await tags()]).toEqual([['first'], ['first']]);
    await done(overwrite('--memory', '--description', 'third'));
    expect(await listed()).toMatchObject([{ name: 'first', tag: 'first.other', description: 'third' }]);
    write(3);
    await done(zfsdev('snapshot', 'load', name, 'first'));
    expect(holding(2)).toEqual(both);
    await done(zfsdev('snapshot', 'delete', name, 'first'));
    expect(await listed()).toEqual([]);
  });

  it('on some of its disks is refused, as the rest would be of another moment', async () => {
    await refused(
      overwrite('--live', '--disk', 'data'),
      4,
      'is on "root" too',
      'zfsdev snapshot delete cut first',
    );
    expect(await find('first')).toMatchObject({ lost: [], tag: 'first' });
    expect(disks.length).toBe(2);
  });
});

describe('a set of a stopped machine that is taken in the place of another one', () => {
  beforeEach(() => cutPower());

  it.each([1, 2, 3, 4])('and is cut off after %d changes leaves one of both whole', async (changes) => {
    await killAfter(changes, 'create', name, 'first', '--overwrite');
    await expectNothingLost();
  });

  it('is not mistaken for that one by whoever names it next', async () => {
    await done(overwrite());
    expect(await tags()).toEqual(['first.other']);
    await killAfter(1, 'create', name, 'first', '--overwrite');
    // What was seen under the name is taken away, as it is half of a set.
    expect(await find('first')).toMatchObject({ tag: 'first', lost: ['data'] });
    await refused(
      zfsdev('snapshot', 'delete', name, 'first'),
      4,
      'has the name "first" now',
      'snapshot list',
    );
    expect(await listed()).toMatchObject([{ name: 'first', tag: 'first.other', lost: [] }]);
  });
});
