import { setTimeout as delay } from 'node:timers/promises';
import { wordsOf, ZvolError } from './errors.ts';
import { deviceOf, holding, lockOf, refuseFor, withVolume, type Keeper } from './keeper.ts';
import type { Volume } from './model.ts';
import { isName, ownIdPrefix } from './names.ts';
import { destroyVolume, guidOf, type DestroyOutcome } from './programs.ts';
import { obstaclesTo, tellOthers } from './volumes.ts';
import { failureOf } from './words.ts';

/** Milliseconds for those who look at every device that comes, and let go of it by themselves. */
const busyDeadline = 10_000;

/** What a volume was that is gone. */
interface Gone {
  readonly id: string;
  /** The snapshot it was cloned from; empty if it was not. */
  readonly origin: string;
}

/** What is done about a volume that was just destroyed. */
type End = (name: string, gone: Gone) => Promise<void>;

/**
 * Deletes a volume with its snapshots, and waits until its device is gone.
 * @throws ZvolError `FAILED_PRECONDITION` with all that stands in the way; then nothing of it was deleted. `DEADLINE_EXCEEDED` if
 *   all of it was, and its device does not go
 */
export async function deleteVolume(keeper: Keeper, word: string): Promise<void> {
  let origin = '';
  const end: End = (name, gone) => {
    ({ origin } = gone);
    return told(keeper, name, gone);
  };
  try {
    if (await deletedByName(keeper, word, end)) return;
    await withVolume(keeper, word, [], async (volume) => {
      await refuseInUse(keeper, volume);
      await end(volume.name, await destroy(keeper, volume));
    });
  } finally {
    await tellOthers(keeper, { origin });
  }
}

/** The usual case: the word is a name, and nothing is in the way, which one question tells. */
async function deletedByName(keeper: Keeper, name: string, end: End): Promise<boolean> {
  if (!isName(name)) return false;
  return holding(keeper, [lockOf.volume(name)], async () => {
    // ZFS itself refuses what is open; this is what can be named before anything is done.
    const claims = await keeper.machine.claimsOf(`/dev/zvol/${keeper.pool}/${name}`);
    const done = claims.length === 0 ? await attempt(keeper, name) : undefined;
    if (done === undefined || done === 'busy' || done === 'needed' || done === 'none') return false;
    await end(name, done);
    return true;
  });
}

/** @returns undefined where there are no channel programs */
async function attempt(
  { zfs, pool }: Keeper,
  name: string,
): Promise<Gone | 'busy' | 'needed' | 'none' | undefined> {
  const dataset = `${pool}/${name}`;
  const told = (await zfs.program(pool, destroyVolume, dataset)) as DestroyOutcome | undefined;
  if (told === undefined) return undefined;
  if (told.outcome === 'failed') throw failureOf(`cannot destroy '${dataset}'`, told.error);
  if (told.outcome !== 'gone') return told.outcome;
  return { id: told.id || ownIdPrefix + guidOf(told.guid), origin: told.origin };
}

async function refuseInUse(keeper: Keeper, { name, path, snapshots }: Volume): Promise<void> {
  refuseFor(`the volume "${name}" can't be deleted`, [
    ...(await keeper.machine.usersOf(path)),
    ...snapshots.flatMap((snapshot) => obstaclesTo(keeper, snapshot)),
  ]);
}

/** Destroys what nobody could be named for: somebody may still look at it for a moment. */
async function destroy(keeper: Keeper, volume: Volume): Promise<Gone> {
  for (const end = performance.now() + busyDeadline; ;) {
    const done = await attempt(keeper, volume.name);
    if (done === 'none') throw new ZvolError('NOT_FOUND', `there is no volume "${volume.name}"`);
    if (done !== undefined && done !== 'busy' && done !== 'needed') return done;
    if (done === undefined && (await destroyedPlainly(keeper, volume))) return volume;
    await refuseInUse(keeper, volume);
    if (performance.now() > end)
      throw new ZvolError(
        'FAILED_PRECONDITION',
        `the volume "${volume.name}" can't be deleted: ZFS says that it is busy, and nobody can be found who has it open`,
      );
    await delay(100);
  }
}

/** Without channel programs. @returns false if it is busy */
async function destroyedPlainly({ zfs }: Keeper, { dataset, snapshots }: Volume): Promise<boolean> {
  try {
    await zfs.change('zfs', 'destroy', ...(snapshots.length > 0 ? ['-r'] : []), dataset);
    return true;
  } catch (error) {
    if (error instanceof ZvolError && / is busy/.test(error.message)) return false;
    throw error;
  }
}

/** Tells of its end, and waits for that of its device. */
async function told(keeper: Keeper, name: string, { id }: Gone): Promise<void> {
  keeper.hub.tell({ kind: 'volume-deleted', id });
  try {
    await keeper.machine.awaitDevice(deviceOf(keeper, `${keeper.pool}/${name}`), false);
  } catch (error) {
    const code = error instanceof ZvolError ? error.code : 'INTERNAL';
    throw new ZvolError(code, `the volume "${name}" is deleted, but ${wordsOf(error)}`, error);
  }
}
