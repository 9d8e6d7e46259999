import { beforeEach, describe, expect, it } from 'vitest';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import type { Told } from '../../../src/zvold/hub.ts';
import { newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import { createSnapshot, deleteSnapshot } from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

const MiB = 2 ** 20;
let fake: FakeZfs;
let keeper: Keeper;

beforeEach(async () => {
  fake = new FakeZfs();
  keeper = newKeeper(fake.pool, fake.command, fake.machine);
  await createVolume(keeper, { name: 'data', size: MiB, thick: false, id: '' });
  await createSnapshot(keeper, 'data', 'first', '');
  await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'first', id: 't' });
});

const clone = (name: string): Promise<unknown> => cloneTemplate(keeper, { template: 'base', name, id: '' });

function wordsOf(told: Told): string {
  if (told.kind === 'template') return `template with ${told.template.clones.join(' ') || 'none'}`;
  if (told.kind !== 'volume') return told.kind;
  const { name, snapshots } = told.volume;
  return ['volume', name, ...snapshots.map((each) => `${each.name}(${each.clones.join(' ')})`)].join(' ');
}

/** What a watcher is told of what is done while it watches. */
async function toldOf(work: () => Promise<unknown>): Promise<string[]> {
  const stop = new AbortController();
  const seen: string[] = [];
  for await (const told of keeper.hub.watch(() => Promise.resolve([]), stop.signal)) {
    if (told.kind === 'synced') void work().finally(() => stop.abort());
    else seen.push(wordsOf(told));
  }
  return seen;
}

describe('a watcher', () => {
  it('is told who is cloned, and how often, whenever that changes', async () => {
    const told = await toldOf(async () => {
      await clone('copy');
      await createSnapshot(keeper, 'copy', 'one', '');
      await deleteVolume(keeper, 'copy');
    });
    expect(told).toEqual([
      'volume copy',
      'volume data first(tank/copy)',
      'template with copy',
      'volume copy one()',
      'volume-deleted',
      'volume data first()',
      'template with none',
    ]);
  });

  it('is told of the template whose clone has another name', async () => {
    await clone('copy');
    expect(await toldOf(() => renameVolume(keeper, 'copy', 'other'))).toEqual([
      'volume other',
      'volume data first(tank/other)',
      'template with other',
    ]);
  });

  it('is told of a snapshot that goes with its last clone', async () => {
    await clone('copy');
    fake.get('tank/data@first').properties.delete('zfsdev:template');
    await deleteSnapshot(keeper, 'data', 'first', true);
    expect(await toldOf(() => deleteVolume(keeper, 'copy'))).toEqual(['volume-deleted', 'volume data']);
  });

  it('is told of a name whose device does not come', async () => {
    const work = (): Promise<unknown> => {
      fake.devicesCome = false;
      return expect(renameVolume(keeper, 'data', 'other')).rejects.toThrow(
        /^the volume "data" is called "other" now, but the device .* did not come/,
      );
    };
    expect(await toldOf(work)).toEqual(['volume other first()', 'template with none']);
  });

  it('is told last what is, whoever was faster', async () => {
    await clone('copy');
    let goOn = (): void => undefined;
    const told = await toldOf(async () => {
      let lists = 0;
      fake.before = (argv) => {
        // The question for others behind a delete waits, and a change to one of them is made meanwhile.
        const isSurvey = argv[1] === 'list' && argv.at(-1) === 'tank';
        return isSurvey && (lists += 1) === 1 ? new Promise((resolve) => (goOn = resolve)) : undefined;
      };
      const deleted = deleteVolume(keeper, 'copy');
      await expect.poll(() => lists, { interval: 1 }).toBe(1);
      const resized = resizeVolume(keeper, 'data', 2 * MiB);
      const gone = deleteTemplate(keeper, 'base');
      goOn();
      await Promise.all([deleted, resized, gone]);
    });
    expect(told.slice(0, 3)).toEqual(['volume-deleted', 'volume data first()', 'template with none']);
    expect(told.slice(3).sort()).toEqual(['template-deleted', 'volume data first()']);
  });
});

describe('a pool that hangs', () => {
  it('is told of to who would wait behind those that it keeps', async () => {
    let [goOn, reached] = [(): void => undefined, (): void => undefined];
    const hangs = new Promise<void>((resolve) => (reached = resolve));
    fake.machine.flush = () => {
      reached();
      return new Promise((resolve) => (goOn = resolve));
    };
    const hanging = createSnapshot(keeper, 'data', 'second', '');
    await hangs;
    fake.state = 'SUSPENDED';
    for (const work of [
      () => createSnapshot(keeper, 'data', 'third', ''),
      () => resizeVolume(keeper, 'data', 2 * MiB),
      () => deleteVolume(keeper, 'data'),
      () => createVolume(keeper, { name: 'data', size: MiB, thick: false, id: '' }),
    ])
      await expect(work()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    fake.state = 'ONLINE';
    goOn();
    expect(await hanging).toMatchObject({ name: 'second' });
  });
});
