import { beforeEach, describe, expect, it } from 'vitest';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import { newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import { createSnapshot, deleteSnapshot, rollback } from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

const MiB = 2 ** 20;
const changes = /^(create|clone|snapshot|set|inherit|rename|destroy|rollback|hold|release|program)$/;
let fake: FakeZfs;

/** A daemon that was just started. */
function daemon(): Keeper {
  const { pool, machine, command } = fake;
  return newKeeper(pool, command, machine);
}

/** What is in the pool, but for what ZFS itself gives each dataset. */
function state(): string {
  const rows = [...fake.datasets].map(([name, { properties, origin }]) => {
    const own = [...properties].filter(([key]) => key !== 'guid' && key !== 'creation').sort();
    return JSON.stringify([name, origin, own]);
  });
  return rows.sort().join('\n');
}

beforeEach(async () => {
  fake = new FakeZfs();
  const keeper = daemon();
  await createVolume(keeper, { name: 'data', size: MiB, thick: false, id: 'data' });
  await createSnapshot(keeper, 'data', 'base', 'base');
  await createSnapshot(keeper, 'data', 'bare', 'bare');
  await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'base', id: 'template' });
  await createVolume(keeper, { name: 'other', size: MiB, thick: false, id: 'other' });
});

const operations: readonly (readonly [what: string, run: (keeper: Keeper) => Promise<unknown>])[] = [
  ['create', (keeper) => createVolume(keeper, { name: 'new', size: MiB, thick: false, id: 'new' })],
  ['resize', (keeper) => resizeVolume(keeper, 'data', 2 * MiB)],
  ['rename', (keeper) => renameVolume(keeper, 'other', 'another')],
  ['delete', (keeper) => deleteVolume(keeper, 'other')],
  ['snapshot', (keeper) => createSnapshot(keeper, 'data', 'new', 'new')],
  ['delete a snapshot', (keeper) => deleteSnapshot(keeper, 'data', 'bare', false)],
  ['roll back', (keeper) => rollback(keeper, 'data', 'bare', true)],
  [
    'make a template',
    (keeper) => createTemplate(keeper, { name: 'two', volume: 'data', snapshot: 'bare', id: 'two' }),
  ],
  ['delete a template', (keeper) => deleteTemplate(keeper, 'base')],
  [
    'clone, larger',
    (keeper) => cloneTemplate(keeper, { template: 'base', name: 'clone', size: 2 * MiB, id: 'clone' }),
  ],
];

describe('a daemon that is killed behind each change of an operation', () => {
  it.each(operations)('%s: it is done or undone, and can be asked for again', async (_, run) => {
    const start = new Map([...fake.datasets].map(([name, set]) => [name, structuredClone(set)]));
    const restore = (): void => {
      fake.datasets.clear();
      for (const [name, set] of start) fake.datasets.set(name, structuredClone(set));
    };
    await run(daemon());
    const after = state();
    for (let at = 1; ; at += 1) {
      restore();
      let seen = 0;
      let dead: () => void = () => undefined;
      const died = new Promise<'died'>((resolve) => (dead = () => resolve('died')));
      fake.before = (argv) => {
        // Whatever it asks from then on, it never hears of.
        if (seen === at) {
          dead();
          return new Promise(() => undefined);
        }
        if (changes.test(argv[1] ?? '')) seen += 1;
      };
      const ended = await Promise.race([run(daemon()).then(() => 'ended'), died]);
      fake.before = () => undefined;
      if (ended === 'ended' && seen < at) break;
      await run(daemon()).catch((error: unknown) => {
        // It was done, and is not there to be done again.
        expect(error).toMatchObject({ code: 'NOT_FOUND' });
      });
      expect(state(), `change ${at}`).toBe(after);
    }
  });
});
