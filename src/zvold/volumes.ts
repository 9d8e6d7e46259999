import { inventory, idFor, lockOf, refuseFor, requirePool, withVolume, type Keeper } from './keeper.ts';
import { ZvolError } from './errors.ts';
import { property, readVolume } from './inventory.ts';
import type { Snapshot, Volume } from './model.ts';
import { alignSize, checkBlockSize, checkName, defaultBlockSize } from './names.ts';

export interface NewVolume {
  readonly name: string;
  /** Bytes; rounded up to whole blocks. */
  readonly size: number;
  readonly blockSize?: number | undefined;
  /** All of its size is reserved for it. */
  readonly thick: boolean;
  /** Empty: a new one. */
  readonly id: string;
}

/**
 * Creates a volume whose device is there afterwards. The same request with the same id again gives the same volume.
 * @throws ZvolError `INVALID_ARGUMENT`, `ALREADY_EXISTS`, `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED` for the device
 */
export async function createVolume(keeper: Keeper, wanted: NewVolume): Promise<Volume> {
  const { name, thick } = wanted;
  checkName('the volume', name, `${keeper.pool}/`);
  const blockSize = wanted.blockSize ?? defaultBlockSize;
  checkBlockSize(blockSize);
  const size = alignSize(wanted.size, blockSize);
  const id = idFor(wanted.id);
  return make(keeper, { name, id, given: wanted.id !== '', isSame: (present) => present.size === size }, () =>
    keeper.zfs.change(
      'zfs',
      ...['create', ...(thick ? [] : ['-s']), '-b', String(blockSize), '-V', String(size)],
      ...['-o', `${property.volumeId}=${id}`, `${keeper.pool}/${name}`],
    ),
  );
}

/** A volume that is about to be there. */
export interface Making {
  readonly name: string;
  readonly id: string;
  /** The id is the caller's own: nobody else may have it. */
  readonly given: boolean;
  /** Tells whether a volume with this name and id is what was asked for. */
  readonly isSame: (present: Volume) => boolean;
}

/** Makes a volume by `work`, under the rules that all new volumes have. */
export async function make(keeper: Keeper, making: Making, work: () => Promise<void>): Promise<Volume> {
  const { name, id, given, isSame } = making;
  await requirePool(keeper);
  const locks = [lockOf.volume(name), ...(given ? [lockOf.ids] : [])];
  return keeper.locks.holding(locks, async () => {
    const other = given ? (await inventory(keeper)).volumes.find((each) => each.id === id) : undefined;
    if (other && other.name === name && isSame(other)) return other;
    if (other) throw new ZvolError('ALREADY_EXISTS', `the volume "${other.name}" has the id ${id}`);
    await work();
    const volume = await whole(keeper, name);
    keeper.hub.tell({ kind: 'volume', volume });
    return volume;
  });
}

/** A volume that was just made, once its device is there; without one, it is taken away again. */
async function whole(keeper: Keeper, name: string): Promise<Volume> {
  const dataset = `${keeper.pool}/${name}`;
  try {
    await keeper.machine.awaitDevice(`${keeper.machine.devices}/${dataset}`, true);
  } catch (error) {
    await keeper.zfs.change('zfs', 'destroy', dataset);
    throw error;
  }
  return present(keeper, name);
}

/** A volume that was there a moment ago. @throws ZvolError `ABORTED` */
export async function present(keeper: Keeper, name: string): Promise<Volume> {
  const volume = await readVolume(keeper.zfs, keeper.pool, name);
  if (volume) return volume;
  throw new ZvolError('ABORTED', `the volume "${name}" was taken away by somebody else meanwhile`);
}

/** Does something to a volume while nobody else does, tells watchers, and gives what it is then. */
export function changing(
  keeper: Keeper,
  word: string,
  work: (volume: Volume) => Promise<void>,
): Promise<Volume> {
  return withVolume(keeper, word, [], async (before) => {
    await work(before);
    const volume = await present(keeper, before.name);
    keeper.hub.tell({ kind: 'volume', volume });
    return volume;
  });
}

/** Makes a volume larger. @throws ZvolError `FAILED_PRECONDITION` for a smaller size */
export function resizeVolume(keeper: Keeper, word: string, asked: number): Promise<Volume> {
  return changing(keeper, word, async ({ name, dataset, size, blockSize }) => {
    const wanted = alignSize(asked, blockSize);
    if (wanted < size)
      throw new ZvolError(
        'FAILED_PRECONDITION',
        `the volume "${name}" has ${size} bytes: a volume is never made smaller, and ${asked} are less`,
      );
    if (wanted > size) await keeper.zfs.change('zfs', 'set', `volsize=${wanted}`, dataset);
  });
}

/** Gives a volume another name. @throws ZvolError `ALREADY_EXISTS`, `FAILED_PRECONDITION` while it is used */
export async function renameVolume(keeper: Keeper, word: string, newName: string): Promise<Volume> {
  checkName('the volume', newName, `${keeper.pool}/`);
  return withVolume(keeper, word, [lockOf.volume(newName)], async (volume) => {
    const { name } = volume;
    if (name === newName) return volume;
    refuseFor(`the volume "${name}" is in use`, await keeper.machine.usersOf(volume.path));
    await keeper.zfs.change('zfs', 'rename', volume.dataset, `${keeper.pool}/${newName}`);
    await keeper.machine.awaitDevice(`${keeper.machine.devices}/${keeper.pool}/${newName}`, true);
    const renamed = await present(keeper, newName);
    keeper.hub.tell({ kind: 'volume', volume: renamed });
    return renamed;
  });
}

/** Deletes a volume with its snapshots. @throws ZvolError `FAILED_PRECONDITION` with all that stands in the way */
export async function deleteVolume(keeper: Keeper, word: string): Promise<void> {
  await withVolume(keeper, word, [lockOf.templates], async ({ name, dataset, path, snapshots, id }) => {
    refuseFor(`the volume "${name}" can't be deleted`, [
      ...(await keeper.machine.usersOf(path)),
      ...snapshots.flatMap((snapshot) => obstaclesTo(keeper, snapshot)),
    ]);
    await keeper.zfs.change('zfs', 'destroy', '-r', dataset);
    await keeper.machine.awaitDevice(path, false);
    keeper.hub.tell({ kind: 'volume-deleted', id });
  });
}

/** What keeps a snapshot from being deleted, in words. */
export function obstaclesTo(keeper: Keeper, { name, clones, holds, template }: Snapshot): string[] {
  const short = (dataset: string): string => dataset.slice(keeper.pool.length + 1);
  return [
    ...clones.map((clone) => `"${short(clone)}" was cloned from its snapshot "${name}"`),
    ...(template ? [`its snapshot "${name}" is the template "${template.name}"`] : []),
    ...(holds > 0 ? [`its snapshot "${name}" is held`] : []),
  ];
}
