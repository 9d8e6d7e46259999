import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import type { ZvolError } from '../../../src/zvold/errors.ts';
import { Imports } from '../../../src/zvold/imports.ts';
import { property } from '../../../src/zvold/inventory.ts';
import { inventory, newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import {
  createSnapshot,
  deleteSnapshot,
  holdSnapshot,
  releaseSnapshot,
  rollback,
} from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

const MiB = 2 ** 20;
const changes = /^(create|clone|snapshot|set|inherit|rename|destroy|rollback|hold|release|program)$/;
let fake: FakeZfs;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-killed-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** A daemon that was just started. */
function daemon(): Keeper {
  const { pool, machine, command } = fake;
  return newKeeper(pool, command, machine);
}

/** What the next daemon does first; gives what it says. */
async function recoveredBy(keeper: Keeper): Promise<readonly string[]> {
  const policy = { folders: [], allowLocalAddresses: false, largest: 2 ** 40 };
  const told: string[] = [];
  const imports = new Imports(keeper, { command: fake.command, policy, folder, atOnce: 1 });
  await imports.recover((words) => void told.push(words));
  return told;
}

/** What is in the pool, but for what ZFS itself gives each dataset. */
function state(): string {
  const rows = [...fake.datasets].map(([name, { properties, origin, holds }]) => {
    const own = [...properties].filter(([key]) => key !== 'guid' && key !== 'creation').sort();
    return JSON.stringify([name, origin, own, [...holds]]);
  });
  return rows.sort().join('\n');
}

/** What the pool has before each walk. */
async function furnish(): Promise<void> {
  const keeper = daemon();
  await createVolume(keeper, { name: 'data', size: MiB, thick: false, id: 'data' });
  await createSnapshot(keeper, 'data', 'base', 'base');
  await createSnapshot(keeper, 'data', 'bare', 'bare');
  await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'base', id: 'template' });
  await createVolume(keeper, { name: 'other', size: MiB, thick: false, id: 'other' });
  await createSnapshot(keeper, 'other', 'kept', 'kept');
  await holdSnapshot(keeper, 'data', 'bare', 'mine');
  for (const words of [
    ['create', 'tank/.zvold'],
    ['create', '-s', '-b', '16384', '-V', String(MiB), 'tank/.zvold/job'],
    [
      'snapshot',
      '-o',
      `${property.template}=image`,
      '-o',
      `${property.templateId}=job`,
      'tank/.zvold/job@img',
    ],
  ])
    await fake.command(['zfs', ...words], { deadline: 1 });
}

const operations: readonly (readonly [what: string, run: (keeper: Keeper) => Promise<unknown>])[] = [
  ['create', (keeper) => createVolume(keeper, { name: 'new', size: MiB, thick: false, id: 'new' })],
  ['resize', (keeper) => resizeVolume(keeper, 'data', 2 * MiB)],
  ['rename', (keeper) => renameVolume(keeper, 'other', 'another')],
  ['delete', (keeper) => deleteVolume(keeper, 'other')],
  ['snapshot', (keeper) => createSnapshot(keeper, 'data', 'new', 'new')],
  ['delete a snapshot', (keeper) => deleteSnapshot(keeper, 'other', 'kept', false)],
  ['roll back', (keeper) => rollback(keeper, 'data', 'bare', true)],
  ['hold', (keeper) => holdSnapshot(keeper, 'data', 'base', 'more')],
  ['release', (keeper) => releaseSnapshot(keeper, 'data', 'bare', 'mine')],
  [
    'make a template',
    (keeper) => createTemplate(keeper, { name: 'two', volume: 'data', snapshot: 'bare', id: 'two' }),
  ],
  ['delete a template', (keeper) => deleteTemplate(keeper, 'base')],
  ['delete an imported template', (keeper) => deleteTemplate(keeper, 'image')],
  [
    'clone, larger',
    (keeper) => cloneTemplate(keeper, { template: 'base', name: 'clone', size: 2 * MiB, id: 'clone' }),
  ],
];

const walks = [true, false].flatMap((programs) =>
  operations.map(([what, run]) => [what, programs, run] as const),
);

describe('a daemon that is killed behind each change of an operation', () => {
  it.each(walks)(
    '%s, programs %s: it is done or undone, and can be asked for again',
    async (_, programs, run) => {
      fake = new FakeZfs();
      fake.programs = programs;
      await furnish();
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
        const next = daemon();
        const told = await recoveredBy(next);
        // Nothing lies about: what is left of zvold's own is a template.
        const { templates, unfinished } = await inventory(next);
        expect(unfinished).toEqual([]);
        const zvols = [...fake.datasets.keys()].filter((name) => /^tank\/\.zvold\/[^@]+$/.test(name));
        expect(zvols).toEqual(templates.some(({ name }) => name === 'image') ? ['tank/.zvold/job'] : []);
        if (told.length > 0) expect(told).toEqual(['the unfinished tank/.zvold/job was destroyed']);
        await run(next).catch((error: unknown) => {
          // It was done, and is not there, or is there, to be done again.
          expect((error as ZvolError).code).toMatch(/^(NOT_FOUND|ALREADY_EXISTS)$/);
        });
        expect(state(), `change ${at}`).toBe(after);
      }
    },
  );
});
