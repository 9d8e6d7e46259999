import { randomUUID } from 'node:crypto';
import { ZvolError } from './errors.ts';
import type { Hub } from './hub.ts';
import { findVolume, takeInventory, readVolume } from './inventory.ts';
import type { Locks } from './locks.ts';
import type { Machine } from './machine.ts';
import type { Inventory, Volume } from './model.ts';
import { checkId } from './names.ts';
import type { Zfs } from './zfs.ts';

/** What all operations on one pool share. */
export interface Keeper {
  readonly pool: string;
  readonly zfs: Zfs;
  readonly machine: Machine;
  readonly locks: Locks;
  readonly hub: Hub;
}

/**
 * Looks first whether the pool is there and answers: on one that is suspended, `zfs` itself would hang.
 * @throws ZvolError `UNAVAILABLE`
 */
export async function requirePool({ machine, pool }: Keeper): Promise<void> {
  const state = await machine.poolState(pool);
  if (state === undefined) throw new ZvolError('UNAVAILABLE', `the pool ${pool} is not imported`);
  if (state !== 'ONLINE' && state !== 'DEGRADED')
    throw new ZvolError('UNAVAILABLE', `the pool ${pool} is ${state}: zpool status ${pool} tells why`);
}

/** @throws ZvolError `UNAVAILABLE` */
export async function inventory(keeper: Keeper): Promise<Inventory> {
  await requirePool(keeper);
  return takeInventory(keeper.zfs, keeper.pool);
}

/** A volume by its name, or else by its id. @throws ZvolError `NOT_FOUND`, `UNAVAILABLE` */
export async function volumeOf(keeper: Keeper, word: string): Promise<Volume> {
  if (word === '') throw new ZvolError('INVALID_ARGUMENT', 'no volume was named');
  await requirePool(keeper);
  const byName = await readVolume(keeper.zfs, keeper.pool, word);
  return byName ?? findVolume(await takeInventory(keeper.zfs, keeper.pool), word);
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
    const outcome = await keeper.locks.holding([lockOf.volume(name), ...locks], async () => {
      const volume = await volumeOf(keeper, word);
      return volume.name === name ? { value: await work(volume) } : { name: volume.name };
    });
    if ('value' in outcome) return outcome.value;
    ({ name } = outcome);
  }
}

/** The caller's id, or a new one. @throws ZvolError `INVALID_ARGUMENT` */
export function idFor(asked: string): string {
  if (asked === '') return randomUUID();
  checkId(asked);
  return asked;
}

/** What stands for a thing among locks. */
export const lockOf = {
  volume: (name: string): string => `volume ${name}`,
  /** Names and ids of templates are looked up before they are given. */
  templates: 'templates',
  /** So are ids that callers bring along. */
  ids: 'ids',
} as const;

/** A thing that something stands in the way of, with all of it. @throws ZvolError `FAILED_PRECONDITION` */
export function refuseFor(what: string, obstacles: readonly string[]): void {
  if (obstacles.length > 0) throw new ZvolError('FAILED_PRECONDITION', `${what}: ${obstacles.join('; ')}`);
}
