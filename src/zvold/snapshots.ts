import { ZvolError } from './errors.ts';
import { findSnapshot, property } from './inventory.ts';
import { holding, idFor, lockOf, refuseFor, severalOf, volumeOf, type Keeper } from './keeper.ts';
import type { Snapshot, Volume } from './model.ts';
import { checkName, isName } from './names.ts';
import { guidOf, takeSnapshot, type SnapshotOutcome } from './programs.ts';
import { changing, obstaclesTo, present } from './volumes.ts';
import { failureOf } from './words.ts';

/** Takes a snapshot. The same request with the same id again gives the same. @throws ZvolError `ALREADY_EXISTS` */
export async function createSnapshot(
  keeper: Keeper,
  word: string,
  name: string,
  asked: string,
): Promise<Snapshot> {
  const id = idFor(asked);
  if (isName(word)) {
    checkName('the snapshot', name, `${keeper.pool}/${word}@`);
    const taken = await holding(keeper, [lockOf.volume(word)], () =>
      takenAtOnce(keeper, { volume: word, name, id, given: asked !== '' }),
    );
    if (taken) return taken;
  }
  const volume = await changing(keeper, word, async ({ dataset, path, snapshots }) => {
    checkName('the snapshot', name, `${dataset}@`);
    const present = snapshots.find((each) => each.name === name);
    if (present && asked !== '' && present.id === asked) return;
    if (asked !== '' && snapshots.some((each) => each.id === asked))
      throw new ZvolError('ALREADY_EXISTS', `another snapshot of the volume has the id ${asked}`);
    await keeper.machine.flush(path);
    await keeper.zfs.change('zfs', 'snapshot', '-o', `${property.snapshotId}=${id}`, `${dataset}@${name}`);
  });
  return findSnapshot(volume, name);
}

interface Taking {
  readonly volume: string;
  readonly name: string;
  readonly id: string;
  /** The id is the caller's own. */
  readonly given: boolean;
}

/** Snapshots that others may take at the same moment, of which ZFS makes one only. */
const attempts = 5;

/**
 * Takes a snapshot by one question to ZFS, where all is as usual.
 * @returns undefined if there is more to find out: no such volume, the snapshot is there already, no channel programs.
 */
async function takenAtOnce(keeper: Keeper, wanted: Taking): Promise<Snapshot | undefined> {
  const { zfs, pool, machine, hub } = keeper;
  const dataset = `${pool}/${wanted.volume}`;
  await machine.flush(`/dev/zvol/${dataset}`);
  for (let attempt = 1; ; attempt += 1) {
    const words = [dataset, wanted.name, wanted.id, wanted.given ? wanted.id : ''];
    const told = (await zfs.program(pool, takeSnapshot, ...words)) as SnapshotOutcome | undefined;
    if (told?.outcome === 'failed') {
      if (told.error === sameMoment && attempt < attempts) continue;
      throw failureOf(`cannot create snapshot '${dataset}@${wanted.name}'`, told.error);
    }
    if (told?.outcome !== 'taken') return undefined;
    if (hub.isWatched) hub.tell({ kind: 'volume', volume: await present(keeper, wanted.volume) });
    return {
      id: wanted.id,
      name: wanted.name,
      fullName: `${dataset}@${wanted.name}`,
      guid: guidOf(told.guid),
      size: told.volsize,
      used: told.used,
      referenced: told.referenced,
      created: told.creation,
      holds: 0,
      clones: [],
      deferred: false,
    };
  }
}

/** The kernel's number for a volume that has a snapshot of this very moment. */
const sameMoment = 11;

/** The snapshots of a volume, oldest first. */
export async function listSnapshots(keeper: Keeper, word: string): Promise<readonly Snapshot[]> {
  return (await volumeOf(keeper, word)).snapshots;
}

/**
 * Deletes a snapshot, or has it go when nothing stands on it any more.
 * @returns whether it is still there. @throws ZvolError `FAILED_PRECONDITION` with what stands in the way
 */
export async function deleteSnapshot(
  keeper: Keeper,
  word: string,
  name: string,
  deferred: boolean,
): Promise<boolean> {
  let fullName = '';
  const volume = await changing(keeper, word, async (before) => {
    const snapshot = findSnapshot(before, name);
    ({ fullName } = snapshot);
    const obstacles = obstaclesTo(keeper, snapshot);
    // A template is asked for by its own name: deferring would take it away behind its users' backs.
    if (!deferred || snapshot.template)
      refuseFor(`the snapshot "${snapshot.name}" of "${before.name}" can't be deleted`, obstacles);
    await keeper.zfs.change('zfs', 'destroy', ...(deferred ? ['-d'] : []), fullName);
  });
  return volume.snapshots.some((each) => each.fullName === fullName);
}

/** Keeps a snapshot from being deleted. @throws ZvolError `ALREADY_EXISTS` for a hold of that name */
export async function holdSnapshot(
  keeper: Keeper,
  word: string,
  name: string,
  tag: string,
): Promise<Snapshot> {
  checkName('the hold', tag, '');
  const volume = await changing(keeper, word, async (before) => {
    await keeper.zfs.change('zfs', 'hold', tag, findSnapshot(before, name).fullName);
  });
  return findSnapshot(volume, name);
}

/** Lets go of a hold. @returns undefined if the snapshot was to go with it. @throws ZvolError `NOT_FOUND` */
export async function releaseSnapshot(
  keeper: Keeper,
  word: string,
  name: string,
  tag: string,
): Promise<Snapshot | undefined> {
  checkName('the hold', tag, '');
  let fullName = '';
  const volume = await changing(keeper, word, async (before) => {
    ({ fullName } = findSnapshot(before, name));
    await keeper.zfs.change('zfs', 'release', tag, fullName);
  });
  return volume.snapshots.find((each) => each.fullName === fullName);
}

/**
 * Takes a volume back to a snapshot.
 * @throws ZvolError `FAILED_PRECONDITION` while it is used, and for newer snapshots unless they may go
 */
export function rollback(keeper: Keeper, word: string, name: string, deleteNewer: boolean): Promise<Volume> {
  return changing(keeper, word, async (volume) => {
    const snapshot = findSnapshot(volume, name);
    refuseFor(`the volume "${volume.name}" is in use`, await keeper.machine.usersOf(volume.path));
    const newer = volume.snapshots.slice(volume.snapshots.indexOf(snapshot) + 1);
    if (newer.length > 0 && !deleteNewer) {
      const names = severalOf(
        newer.map((each) => `"${each.name}"`),
        ', ',
      );
      throw new ZvolError(
        'FAILED_PRECONDITION',
        `going back to "${snapshot.name}" would delete the newer snapshots ${names} of "${volume.name}"`,
      );
    }
    refuseFor(
      `newer snapshots of "${volume.name}" can't be deleted`,
      newer.flatMap((each) => obstaclesTo(keeper, each)),
    );
    await keeper.zfs.change('zfs', 'rollback', ...(newer.length > 0 ? ['-r'] : []), snapshot.fullName);
  });
}
