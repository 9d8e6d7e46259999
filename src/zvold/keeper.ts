import { randomUUID } from 'node:crypto';
import type { Command } from './command.ts';
import { ZvolError } from './errors.ts';
import { Hub } from './hub.ts';
import { findVolume, findVolumeName, readVolume, takeInventory } from './inventory.ts';
import { lockOf, Locks } from './locks.ts';
import type { Machine } from './machine.ts';
import type { Inventory, Template, Volume } from './model.ts';
import { checkId, deviceName } from './names.ts';
import { PoolWatch } from './pool-watch.ts';
import { Zfs } from './zfs.ts';

export { lockOf } from './locks.ts';

/** What all operations on one pool share. */
export interface Keeper {
  readonly pool: string;
  readonly zfs: Zfs;
  readonly machine: Machine;
  readonly locks: Locks;
  readonly hub: Hub;
  readonly watch: PoolWatch;
  /** Templates as they were last seen, by name and by id; what is made of them is compared with the pool. */
  readonly templates: Map<string, Template>;
  /** Datasets of zvold's own that it is at now: no leftovers of an earlier run. */
  readonly atWork: Set<string>;
}

export function newKeeper(pool: string, command: Command, machine: Machine): Keeper {
  const watch = new PoolWatch(machine, pool);
  return {
    pool,
    zfs: new Zfs(command, () => watch.require()),
    machine,
    locks: new Locks(),
    hub: new Hub(),
    watch,
    templates: new Map(),
    atWork: new Set(),
  };
}

/**
 * Looks first whether the pool is there and answers: on one that is suspended, `zfs` itself would hang.
 * @throws ZvolError `UNAVAILABLE`
 */
export function requirePool({ watch }: Keeper): Promise<void> {
  return watch.require();
}

/**
 * Does something while nobody else has these things. The pool is looked at before they are waited for as well: who hangs on one that is
 * suspended keeps them until it is back.
 * @throws ZvolError `UNAVAILABLE`
 */
export async function holding<T>(
  keeper: Keeper,
  things: readonly string[],
  work: () => Promise<T>,
): Promise<T> {
  await requirePool(keeper);
  return keeper.locks.holding(things, async () => {
    await requirePool(keeper);
    return work();
  });
}

/** @throws ZvolError `UNAVAILABLE` */
export async function inventory(keeper: Keeper): Promise<Inventory> {
  await requirePool(keeper);
  const found = await takeInventory(keeper.zfs, keeper.pool);
  keeper.templates.clear();
  // A name is meant before an id of the same letters is.
  for (const template of found.templates) keeper.templates.set(template.id, template);
  for (const template of found.templates) keeper.templates.set(template.name, template);
  return found;
}

/** A volume by its name, or else by its id. @throws ZvolError `NOT_FOUND`, `UNAVAILABLE` */
export async function volumeOf(keeper: Keeper, word: string): Promise<Volume> {
  if (word === '') throw new ZvolError('INVALID_ARGUMENT', 'no volume was named');
  await requirePool(keeper);
  const { zfs, pool } = keeper;
  const byName = await readVolume(zfs, pool, word);
  if (byName) return byName;
  const name = await findVolumeName(zfs, pool, word);
  const byId = name === undefined ? undefined : await readVolume(zfs, pool, name);
  return byId ?? findVolume({ volumes: [], templates: [], unfinished: [] }, word);
}

/**
 * Does something to a volume while nobody else does, and holds further locks for it. A name costs one question to ZFS, an id
 * a second one, as the lock is that of the name.
 * @throws ZvolError `NOT_FOUND`, `UNAVAILABLE`
 */
export async function withVolume<T>(
  keeper: Keeper,
  word: string,
  locks: readonly string[],
  work: (volume: Volume) => Promise<T>,
): Promise<T> {
  for (let name = word; ;) {
    const outcome = await holding(keeper, [lockOf.volume(name), ...locks], async () => {
      const volume = await volumeOf(keeper, word);
      return volume.name === name ? { value: await work(volume) } : { name: volume.name };
    });
    if ('value' in outcome) return outcome.value;
    ({ name } = outcome);
  }
}

/** Where the device of a dataset is. */
export function deviceOf({ machine }: Keeper, dataset: string): string {
  return `${machine.devices}/${deviceName(dataset)}`;
}

/** The caller's id, or a new one. @throws ZvolError `INVALID_ARGUMENT` */
export function idFor(asked: string): string {
  if (asked === '') return randomUUID();
  checkId(asked);
  return asked;
}

/** What is named one by one: an answer has no room for thousands. */
const mostNamed = 50;

/** Words in a row, as many as can be told. */
export function severalOf(words: readonly string[], between: string): string {
  const more = words.length - mostNamed;
  const named = words.slice(0, mostNamed).join(between);
  return more > 0 ? `${named}${between}and ${more} more` : named;
}

/** A thing that something stands in the way of, with all of it. @throws ZvolError `FAILED_PRECONDITION` */
export function refuseFor(what: string, obstacles: readonly string[]): void {
  if (obstacles.length > 0)
    throw new ZvolError('FAILED_PRECONDITION', `${what}: ${severalOf(obstacles, '; ')}`);
}
