import { beforeEach, describe, expect, it } from 'vitest';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import { property } from '../../../src/zvold/inventory.ts';
import { inventory, newKeeper, volumeOf, type Keeper } from '../../../src/zvold/keeper.ts';
import { createSnapshot } from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

const MiB = 2 ** 20;
let fake: FakeZfs;
let keeper: Keeper;

beforeEach(() => {
  fake = new FakeZfs();
  keeper = newKeeper(fake.pool, fake.command, fake.machine);
});

const create = (name: string, id = '') => createVolume(keeper, { name, size: MiB, thick: false, id });
const byHand = (...words: string[]) => fake.command(['zfs', ...words], { deadline: 1 });

/** The verbs of what ZFS is asked for meanwhile. */
async function asked(work: () => Promise<unknown>): Promise<string[]> {
  fake.calls.length = 0;
  await work();
  return fake.calls.map((call) => call.split(' ')[1] ?? '');
}

async function template(name = 'base'): Promise<void> {
  await create('data');
  await createSnapshot(keeper, 'data', 'first', '');
  await createTemplate(keeper, { name, volume: 'data', snapshot: 'first', id: 't' });
}

describe('what ZFS is asked', () => {
  it('is, for a volume, to make it and what it is then', async () => {
    expect(await asked(() => create('data'))).toEqual(['create', 'program']);
  });

  it('is one thing for a snapshot, and one for a delete, with snapshots or without', async () => {
    await create('data');
    await create('more');
    expect(await asked(() => createSnapshot(keeper, 'data', 'first', ''))).toEqual(['program']);
    expect(await asked(() => deleteVolume(keeper, 'data'))).toEqual(['program']);
    expect(await asked(() => deleteVolume(keeper, 'more'))).toEqual(['program']);
  });

  it('is, for a clone of a known template, to make it and what it is then, whatever else is in the pool', async () => {
    await template();
    expect(await asked(() => cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' }))).toEqual([
      'clone',
      'program',
    ]);
    expect(
      await asked(() => cloneTemplate(keeper, { template: 't', name: 'large', size: 2 * MiB, id: '' })),
    ).toEqual(['clone', 'program']);
  });

  it('is, for an id, whose it is, and no more of all the others', async () => {
    const { id } = await create('data', 'mine');
    expect(await asked(() => volumeOf(keeper, id))).toEqual(['list', 'list', 'list']);
    expect(fake.calls[1]).toContain('-t volume -o name,guid,');
  });
});

describe('a volume that was just made', () => {
  it.each([true, false])(
    'is told as a later question has it, with channel programs: %s',
    async (programs) => {
      fake.programs = programs;
      expect(await create('data')).toEqual(await volumeOf(keeper, 'data'));
      await createSnapshot(keeper, 'data', 'first', '');
      await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'first', id: '' });
      const copy = await cloneTemplate(keeper, { template: 'base', name: 'copy', id: 'mine' });
      expect(copy).toMatchObject({ id: 'mine', template: 'base', origin: 'tank/data@first' });
      expect(copy).toEqual(await volumeOf(keeper, 'copy'));
    },
  );
});

describe('a snapshot', () => {
  it('is told as a later question has it', async () => {
    await create('data');
    const taken = await createSnapshot(keeper, 'data', 'first', 'mine');
    expect((await volumeOf(keeper, 'data')).snapshots).toEqual([taken]);
  });

  it('and a delete are the same where there are no channel programs', async () => {
    fake.programs = false;
    await create('data');
    expect(await createSnapshot(keeper, 'data', 'first', 'mine')).toMatchObject({ id: 'mine', size: MiB });
    await expect(createSnapshot(keeper, 'data', 'first', '')).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    await deleteVolume(keeper, 'data');
    await expect(deleteVolume(keeper, 'data')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect([...fake.datasets.keys()]).toEqual(['tank']);
  });

  it.each([
    ['its volume by its id', 'vol', 'first'],
    ['a volume that was made by hand', 'guid', 'first'],
  ])('finds %s', async (_, word, name) => {
    if (word === 'vol') await create('data', 'vol');
    else await byHand('create', '-s', '-b', '4096', '-V', String(MiB), 'tank/data');
    const [{ id } = { id: '' }] = (await inventory(keeper)).volumes;
    expect(await createSnapshot(keeper, id, name, '')).toMatchObject({ fullName: 'tank/data@first' });
  });
});

describe('a delete that is refused', () => {
  it.each([true, false])('has destroyed nothing, with channel programs: %s', async (programs) => {
    fake.programs = programs;
    await create('data');
    await createSnapshot(keeper, 'data', 'first', '');
    for (const users of [['used by group-logical'], ['open in qemu (7)']]) {
      fake.users.set('/dev/zvol/tank/data', users);
      await expect(deleteVolume(keeper, 'data')).rejects.toThrow(users[0]);
      expect([...fake.datasets.keys()]).toEqual(['tank', 'tank/data', 'tank/data@first']);
    }
  });

  it('asks no process who uses a volume unless ZFS says that somebody does', async () => {
    await create('data');
    const usersOf = fake.machine.usersOf.bind(fake.machine);
    let lookedAt = 0;
    fake.machine.usersOf = (path) => {
      lookedAt += 1;
      return usersOf(path);
    };
    await deleteVolume(keeper, 'data');
    expect(lookedAt).toBe(0);
  });
});

describe('a template', () => {
  it('has the size of its snapshot, whatever its volume has grown to', async () => {
    await template();
    await resizeVolume(keeper, 'data', 4 * MiB);
    const { templates } = await inventory(keeper);
    expect(templates).toMatchObject([{ name: 'base', size: MiB, blockSize: 16_384 }]);
    const copy = await cloneTemplate(keeper, { template: 'base', name: 'copy', size: 2 * MiB, id: '' });
    expect(copy.size).toBe(2 * MiB);
  });

  it('whose volume has another name now is cloned all the same', async () => {
    await template();
    await renameVolume(keeper, 'data', 'renamed');
    expect(await cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' })).toMatchObject({
      origin: 'tank/renamed@first',
    });
    await byHand('rename', 'tank/renamed', 'tank/by-hand');
    expect(await cloneTemplate(keeper, { template: 'base', name: 'other', id: '' })).toMatchObject({
      origin: 'tank/by-hand@first',
    });
  });

  it('that is another snapshot of the same name now is not taken for what it was', async () => {
    await template();
    await byHand('destroy', 'tank/data@first');
    await byHand('snapshot', 'tank/data@first');
    await expect(cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(fake.datasets.has('tank/copy')).toBe(false);
  });

  it('is cloned once for one id of the caller', async () => {
    await template();
    const wanted = { template: 'base', name: 'copy', id: 'mine' };
    const first = await cloneTemplate(keeper, wanted);
    expect(await cloneTemplate(keeper, wanted)).toEqual(first);
    await expect(cloneTemplate(keeper, { ...wanted, size: 2 * MiB })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    await expect(cloneTemplate(keeper, { ...wanted, name: 'other' })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    await expect(create('copy', 'mine')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });

  it('that was imported stays what it is if somebody stands on it after all', async () => {
    await create('data');
    await byHand('create', 'tank/.zvold');
    await byHand('create', '-s', '-b', '16384', '-V', String(MiB), 'tank/.zvold/job');
    const options = [`${property.template}=img`, `${property.templateId}=job`];
    await byHand('snapshot', ...options.flatMap((each) => ['-o', each]), 'tank/.zvold/job@img');
    await byHand('hold', 'somebody', 'tank/.zvold/job@img');
    await expect(deleteTemplate(keeper, 'img')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect((await inventory(keeper)).templates).toMatchObject([{ name: 'img' }]);
    await byHand('release', 'somebody', 'tank/.zvold/job@img');
    await deleteTemplate(keeper, 'img');
    expect([...fake.datasets.keys()]).toEqual(['tank', 'tank/data', 'tank/.zvold']);
  });
});

describe('an id', () => {
  it('is no such one as zvold gives to what has none', async () => {
    await expect(create('data', 'guid-123')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(fake.calls).toEqual([]);
  });

  it('that two bring along at once is that of one', async () => {
    const both = await Promise.allSettled([create('one', 'mine'), create('two', 'mine')]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect((await inventory(keeper)).volumes).toHaveLength(1);
  });
});

it('all operations at once, on the same things, end', async () => {
  await template();
  const work = Array.from({ length: 48 }, async (_, at) => {
    const name = `v${at % 4}`;
    const works: readonly (() => Promise<unknown>)[] = [
      () => create(name, at % 2 === 0 ? `id-${at % 4}` : ''),
      () => cloneTemplate(keeper, { template: 'base', name, id: at % 3 === 0 ? `id-${at % 4}` : '' }),
      () => createSnapshot(keeper, name, `s${at}`, ''),
      () => renameVolume(keeper, name, `v${(at + 1) % 4}`),
      () => deleteVolume(keeper, name),
      () => createTemplate(keeper, { name: `t${at % 3}`, volume: name, snapshot: `s${at - 6}`, id: '' }),
    ];
    await works[at % works.length]?.();
  });
  const ended = await Promise.allSettled(work);
  expect(ended).toHaveLength(48);
});
