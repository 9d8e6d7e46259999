import { beforeEach, describe, expect, it } from 'vitest';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { inventory, newKeeper, volumeOf, type Keeper } from '../../../src/zvold/keeper.ts';
import {
  createSnapshot,
  deleteSnapshot,
  holdSnapshot,
  releaseSnapshot,
  rollback,
} from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { Zfs } from '../../../src/zvold/zfs.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

const MiB = 2 ** 20;
let fake: FakeZfs;
let keeper: Keeper;

beforeEach(() => {
  fake = new FakeZfs();
  keeper = newKeeper(fake.pool, fake.command, fake.machine);
});

const create = (
  name: string,
  more: { size?: number; id?: string; blockSize?: number; thick?: boolean } = {},
) => createVolume(keeper, { name, size: MiB, thick: false, id: '', ...more });

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return error instanceof ZvolError ? error.code : `not a ZvolError: ${String(error)}`;
  }
}

describe('a volume', () => {
  it('is sparse, in blocks of 16 KiB, of whole blocks, with an id of its own', async () => {
    const volume = await create('data', { size: MiB + 1 });
    expect(volume).toMatchObject({
      name: 'data',
      path: '/dev/zvol/tank/data',
      size: MiB + 16_384,
      blockSize: 16_384,
      reserved: 0,
      template: '',
      snapshots: [],
    });
    expect(volume.id).toBe(`guid-${fake.value('tank/data', 'guid')}`);
    expect((await renameVolume(keeper, 'data', 'renamed')).id).toBe(volume.id);
    expect((await create('thick', { thick: true })).reserved).toBe(MiB);
  });

  it('with an id of the caller is made once, and nobody else gets that id', async () => {
    const first = await create('data', { id: 'mine' });
    expect(await create('data', { id: 'mine' })).toEqual(first);
    expect(await codeOf(create('data', { id: 'mine', size: 2 * MiB }))).toBe('ALREADY_EXISTS');
    expect(await codeOf(create('other', { id: 'mine' }))).toBe('ALREADY_EXISTS');
    expect(await codeOf(create('data'))).toBe('ALREADY_EXISTS');
  });

  it.each(['a/b', 'a@b', 'a b', '', '-a', '.zvold', 'x'.repeat(256), 'ü'])(
    'is not named "%s"',
    async (name) => {
      expect(await codeOf(create(name))).toBe('INVALID_ARGUMENT');
      expect(fake.calls).toEqual([]);
    },
  );

  it.each([0, -1, 2 ** 63, Number.NaN])('has no size of %d', async (size) => {
    expect(await codeOf(create('data', { size }))).toBe('INVALID_ARGUMENT');
  });

  it.each([512, 5000, 262_144])('has no blocks of %d bytes', async (blockSize) => {
    expect(await codeOf(create('data', { blockSize }))).toBe('INVALID_ARGUMENT');
  });

  it('whose device does not come is taken away again', async () => {
    fake.devicesCome = false;
    await expect(create('data')).rejects.toThrow('did not come');
    expect([...fake.datasets.keys()]).toEqual(['tank']);
  });

  it('grows to whole blocks, and never shrinks', async () => {
    await create('data');
    expect((await resizeVolume(keeper, 'data', 2 * MiB + 5)).size).toBe(2 * MiB + 16_384);
    expect(await codeOf(resizeVolume(keeper, 'data', MiB))).toBe('FAILED_PRECONDITION');
    expect(await codeOf(resizeVolume(keeper, 'nobody', MiB))).toBe('NOT_FOUND');
  });

  it('keeps its id under another name, and is found by either', async () => {
    const { id } = await create('data');
    expect(await renameVolume(keeper, 'data', 'other')).toMatchObject({ name: 'other', id });
    await create('data');
    expect(await codeOf(renameVolume(keeper, 'data', 'other'))).toBe('ALREADY_EXISTS');
    expect((await resizeVolume(keeper, id, 2 * MiB)).name).toBe('other');
  });

  it('that was made by hand has an id all the same', async () => {
    await fake.command(['zfs', 'create', '-s', '-b', '4096', '-V', String(MiB), 'tank/by-hand'], {
      deadline: 1,
    });
    const [volume] = (await inventory(keeper)).volumes;
    expect(volume).toMatchObject({ name: 'by-hand', id: expect.stringMatching(/^guid-\d+$/) as string });
    expect((await resizeVolume(keeper, volume?.id ?? '', 2 * MiB)).size).toBe(2 * MiB);
  });

  it('that was made by hand may have a blank in its name, which its device has not', async () => {
    const byHand = ['zfs', 'create', '-s', '-b', '4096', '-V', String(MiB), 'tank/by hand'] as const;
    await fake.command(byHand, { deadline: 1 });
    expect((await inventory(keeper)).volumes.map(({ name }) => name)).toEqual(['by hand']);
    expect(await volumeOf(keeper, 'by hand')).toMatchObject({ path: '/dev/zvol/tank/by+hand' });
    expect((await resizeVolume(keeper, 'by hand', 2 * MiB)).size).toBe(2 * MiB);
    expect(await createSnapshot(keeper, 'by hand', 'first', '')).toMatchObject({
      fullName: 'tank/by hand@first',
    });
    expect(await rollback(keeper, 'by hand', 'first', false)).toMatchObject({ name: 'by hand' });
    await renameVolume(keeper, 'by hand', 'data');
    await fake.command(byHand, { deadline: 1 });
    fake.users.set('/dev/zvol/tank/by+hand', ['mounted at /mnt']);
    await expect(deleteVolume(keeper, 'by hand')).rejects.toThrow('mounted at /mnt');
    fake.users.clear();
    await deleteVolume(keeper, 'by hand');
    await deleteVolume(keeper, 'data');
    expect([...fake.datasets.keys()]).toEqual(['tank']);
    expect(await codeOf(volumeOf(keeper, 'by hand'))).toBe('NOT_FOUND');
  });

  it('is not deleted while it is used, cloned, a template, or held, and all of these are named', async () => {
    await create('data');
    await createSnapshot(keeper, 'data', 'first', '');
    await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'first', id: '' });
    await cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' });
    await holdSnapshot(keeper, 'data', 'first', 'me');
    fake.users.set('/dev/zvol/tank/data', ['mounted at /mnt']);
    await expect(deleteVolume(keeper, 'data')).rejects.toThrow(
      /mounted at \/mnt; "copy" was cloned from its snapshot "first"; its snapshot "first" is the template "base"; .* is held/,
    );
    expect(fake.datasets.has('tank/data')).toBe(true);
  });

  it('with an id of the caller is no other one than was asked for', async () => {
    const wanted = { name: 'data', size: MiB, thick: true, id: 'one' };
    const made = await createVolume(keeper, wanted);
    expect(await createVolume(keeper, wanted)).toEqual(made);
    expect(await codeOf(createVolume(keeper, { ...wanted, thick: false }))).toBe('ALREADY_EXISTS');
    // It is there when its device is, also the second time.
    fake.devicesCome = false;
    await expect(createVolume(keeper, wanted)).rejects.toThrow('did not come');
    expect(fake.datasets.has('tank/data')).toBe(true);
  });

  it('is not taken away behind the back of who asks next, where it could not be looked at', async () => {
    let giveUp: (error: Error) => void = () => undefined;
    fake.machine.awaitDevice = () => new Promise((_, reject) => (giveUp = reject));
    let asked = (): void => undefined;
    const looked = new Promise<void>((resolve) => (asked = resolve));
    fake.before = (argv) => {
      if (argv[1] !== 'list') return;
      asked();
      throw new ZvolError('UNAVAILABLE', 'pool I/O is currently suspended');
    };
    const first = create('data', { id: 'one' });
    await looked;
    fake.before = () => undefined;
    const order: string[] = [];
    const second = create('data', { id: 'one' }).then(
      () => order.push('second'),
      () => order.push('second'),
    );
    const ended = first.catch(() => order.push('first'));
    giveUp(new ZvolError('DEADLINE_EXCEEDED', 'the device did not come'));
    await ended;
    expect(fake.datasets.has('tank/data')).toBe(false);
    fake.machine.awaitDevice = () => Promise.resolve();
    await second;
    expect(order).toEqual(['first', 'second']);
    expect(fake.datasets.has('tank/data')).toBe(true);
  });

  it('without a device that can’t be taken away is told of with both reasons', async () => {
    fake.machine.awaitDevice = () => Promise.reject(new ZvolError('DEADLINE_EXCEEDED', 'no device came'));
    fake.before = (argv) => {
      if (argv[1] === 'destroy') throw new ZvolError('UNAVAILABLE', 'the pool is away');
    };
    const failure = await create('data').catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
      message: 'no device came; tank/data stays: the pool is away',
    });
  });

  it('that is gone is told to be, also where its device stays', async () => {
    await create('data');
    fake.machine.awaitDevice = (path) =>
      Promise.reject(new ZvolError('DEADLINE_EXCEEDED', `the device ${path} did not go in 120 s`));
    const failure = await deleteVolume(keeper, 'data').catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
      message: 'the volume "data" is deleted, but the device /dev/zvol/tank/data did not go in 120 s',
    });
    expect([...fake.datasets.keys()]).toEqual(['tank']);
  });

  it('goes with its snapshots', async () => {
    await create('data');
    await createSnapshot(keeper, 'data', 'first', '');
    await deleteVolume(keeper, 'data');
    expect([...fake.datasets.keys()]).toEqual(['tank']);
  });
});

describe('a snapshot', () => {
  beforeEach(async () => {
    await create('data');
    await createSnapshot(keeper, 'data', 'first', 'one');
  });

  it('with an id of the caller is taken once', async () => {
    expect(await createSnapshot(keeper, 'data', 'first', 'one')).toMatchObject({
      id: 'one',
      fullName: 'tank/data@first',
    });
    expect(await codeOf(createSnapshot(keeper, 'data', 'first', 'two'))).toBe('ALREADY_EXISTS');
    expect(await codeOf(createSnapshot(keeper, 'data', 'second', 'one'))).toBe('ALREADY_EXISTS');
  });

  it('is gone back to unless there are newer ones, which are named, or the volume is used', async () => {
    await createSnapshot(keeper, 'data', 'second', '');
    await expect(rollback(keeper, 'data', 'first', false)).rejects.toThrow(
      /newer snapshots "second" of "data"/,
    );
    expect((await rollback(keeper, 'data', 'first', true)).snapshots.map(({ name }) => name)).toEqual([
      'first',
    ]);
    fake.users.set('/dev/zvol/tank/data', ['open in qemu (7)']);
    await expect(rollback(keeper, 'data', 'first', false)).rejects.toThrow('open in qemu (7)');
  });

  it('that is held goes when the hold does, if it was to', async () => {
    await holdSnapshot(keeper, 'data', 'first', 'me');
    expect(await codeOf(holdSnapshot(keeper, 'data', 'first', 'me'))).toBe('ALREADY_EXISTS');
    expect(await codeOf(deleteSnapshot(keeper, 'data', 'first', false))).toBe('FAILED_PRECONDITION');
    expect(await deleteSnapshot(keeper, 'data', 'first', true)).toBe(true);
    expect(await codeOf(releaseSnapshot(keeper, 'data', 'first', 'you'))).toBe('NOT_FOUND');
    expect(await releaseSnapshot(keeper, 'data', 'first', 'me')).toBeUndefined();
  });
});

describe('a template', () => {
  beforeEach(async () => {
    await create('data');
    await createSnapshot(keeper, 'data', 'first', '');
    await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'first', id: 't' });
  });

  it('is made once, counts its clones, and is deleted only without', async () => {
    const same = { name: 'base', volume: 'data', snapshot: 'first', id: 't' };
    expect(await createTemplate(keeper, same)).toMatchObject({ id: 't', sourceVolume: 'data', clones: [] });
    expect(await codeOf(createTemplate(keeper, { ...same, id: '' }))).toBe('ALREADY_EXISTS');
    const copy = await cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' });
    expect(copy).toMatchObject({ size: MiB, template: 'base' });
    expect((await inventory(keeper)).templates).toMatchObject([{ name: 'base', clones: ['copy'] }]);
    await expect(deleteTemplate(keeper, 'base')).rejects.toThrow('"copy" was cloned from it');
    await deleteVolume(keeper, 'copy');
    await deleteTemplate(keeper, 't');
    expect((await inventory(keeper)).templates).toEqual([]);
    expect((await inventory(keeper)).volumes).toMatchObject([
      { name: 'data', snapshots: [{ name: 'first' }] },
    ]);
  });

  it('is meant by its name before another one is by its id', async () => {
    await create('other');
    await createSnapshot(keeper, 'other', 'first', '');
    await createTemplate(keeper, { name: 'other', volume: 'other', snapshot: 'first', id: 'base' });
    for (const look of [() => inventory(keeper), () => Promise.resolve(keeper.templates.clear())]) {
      await look();
      const copy = await cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' });
      expect(copy.origin).toBe('tank/data@first');
      await deleteVolume(keeper, 'copy');
    }
  });

  it('is not made of a snapshot that is to go', async () => {
    await createSnapshot(keeper, 'data', 'second', '');
    await holdSnapshot(keeper, 'data', 'second', 'me');
    await deleteSnapshot(keeper, 'data', 'second', true);
    const wanted = { name: 'more', volume: 'data', snapshot: 'second', id: '' };
    expect(await codeOf(createTemplate(keeper, wanted))).toBe('FAILED_PRECONDITION');
  });

  it('is cloned larger, never smaller', async () => {
    expect(
      (await cloneTemplate(keeper, { template: 'base', name: 'large', size: 3 * MiB + 1, id: '' })).size,
    ).toBe(3 * MiB + 16_384);
    expect(
      await codeOf(cloneTemplate(keeper, { template: 'base', name: 'small', size: 16_384, id: '' })),
    ).toBe('FAILED_PRECONDITION');
  });
});

describe('a pool', () => {
  it.each([
    [undefined, /not imported/],
    ['SUSPENDED', /is SUSPENDED/],
    ['FAULTED', /is FAULTED/],
  ])('that is %s is not asked, and that is no "not found"', async (state, words) => {
    await create('data');
    fake.state = state;
    fake.calls.length = 0;
    await expect(resizeVolume(keeper, 'data', 2 * MiB)).rejects.toThrow(words);
    expect(await codeOf(create('more'))).toBe('UNAVAILABLE');
    expect(fake.calls).toEqual([]);
    fake.state = 'ONLINE';
    expect((await resizeVolume(keeper, 'data', 2 * MiB)).size).toBe(2 * MiB);
  });

  it.each([
    ['out of space', 'RESOURCE_EXHAUSTED'],
    ["cannot destroy 'tank/data': dataset is busy", 'FAILED_PRECONDITION'],
    ['pool I/O is currently suspended', 'UNAVAILABLE'],
    ['The ZFS modules are not loaded.', 'UNAVAILABLE'],
    ['internal error: something else', 'INTERNAL'],
  ])('that says "%s" means %s', async (stderr, code) => {
    fake.before = (argv) => {
      if (argv[1] === 'create') throw new Error('shadowed');
    };
    const zfs = new Zfs(() => Promise.resolve({ exitCode: 1, stdout: '', stderr: `${stderr}\n` }));
    expect(await codeOf(zfs.change('zfs', 'create', 'tank/x'))).toBe(code);
  });
});

it('sixty-four callers at once lose no update', async () => {
  await Promise.all(Array.from({ length: 64 }, (_, i) => create(`v${i % 8}`).catch(() => undefined)));
  expect((await inventory(keeper)).volumes).toHaveLength(8);
  await Promise.all(Array.from({ length: 64 }, (_, i) => createSnapshot(keeper, `v${i % 8}`, `s${i}`, '')));
  const { volumes } = await inventory(keeper);
  expect(volumes.map(({ snapshots }) => snapshots.length)).toEqual(Array.from({ length: 8 }, () => 8));
});
