import { discard } from './discard.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { readFresh, type Fresh } from './fresh.ts';
import { findVolumeName, property, readVolume } from './inventory.ts';
import { deviceOf, holding, inventory, lockOf, refuseFor, withVolume, type Keeper } from './keeper.ts';
import type { Snapshot, Volume } from './model.ts';
import { alignSize, checkBlockSize, checkId, checkName, defaultBlockSize } from './names.ts';

export interface NewVolume {
  readonly name: string;
  /** Bytes; rounded up to whole blocks. */
  readonly size: number;
  readonly blockSize?: number | undefined;
  /** All of its size is reserved for it. */
  readonly thick: boolean;
  /** The caller's; empty for ZFS's own number of it. */
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
  const { id } = wanted;
  const given = id !== '';
  if (given) checkId(id);
  return holding(keeper, [...(given ? [lockOf.ids] : []), lockOf.volume(name)], async () => {
    const before = given ? await madeBefore(keeper, name, id) : undefined;
    if (before) {
      const isSame =
        before.size === size &&
        before.blockSize === blockSize &&
        before.origin === '' &&
        before.reserved > 0 === thick;
      if (!isSame) throw idTaken(before.name, id);
      await keeper.machine.awaitDevice(deviceOf(keeper, before.dataset), true);
      return before;
    }
    const words = [...(thick ? [] : ['-s']), '-b', String(blockSize), '-V', String(size)];
    const dataset = `${keeper.pool}/${name}`;
    keeper.zfs.prepareLook(keeper.pool);
    await keeper.zfs.change('zfs', 'create', ...words, ...idOption(id), dataset);
    const { volume } = await whole(keeper, name, '');
    keeper.hub.tell({ kind: 'volume', volume });
    return volume;
  });
}

/** Has a volume made with the id that the caller gave, which takes ZFS a second step: a third of the time again. */
export function idOption(id: string): string[] {
  return id === '' ? [] : ['-o', `${property.volumeId}=${id}`];
}

/**
 * The volume that a request with an id of the caller's made, if it was sent before.
 * @throws ZvolError `ALREADY_EXISTS` if that volume has another name
 */
export async function madeBefore(
  { zfs, pool }: Keeper,
  name: string,
  id: string,
): Promise<Volume | undefined> {
  const known = await findVolumeName(zfs, pool, id);
  if (known === undefined) return undefined;
  if (known !== name) throw idTaken(known, id);
  return readVolume(zfs, pool, name);
}

export function idTaken(name: string, id: string): ZvolError {
  return new ZvolError('ALREADY_EXISTS', `the volume "${name}" has the id ${id}, and is another one`);
}

/**
 * A volume that was just made, and what it was cloned from, once its device is there: both are awaited at once. Without a
 * device, it is taken away again.
 * @param origin the snapshot it was cloned from, or nothing.
 */
export async function whole(keeper: Keeper, name: string, origin: string): Promise<Fresh> {
  const { machine, pool, zfs } = keeper;
  const dataset = `${pool}/${name}`;
  // Both to their ends, whatever the other one's is: nothing is taken away behind the back of who comes next.
  const [found, came] = await Promise.allSettled([
    readFresh(zfs, pool, name, origin),
    machine.awaitDevice(deviceOf(keeper, dataset), true),
  ]);
  if (came.status === 'rejected') {
    await discard(keeper, dataset).catch((error: unknown) => {
      const { code } = came.reason instanceof ZvolError ? came.reason : { code: 'INTERNAL' as const };
      throw new ZvolError(code, `${wordsOf(came.reason)}; ${dataset} stays: ${wordsOf(error)}`, error);
    });
    throw came.reason;
  }
  if (found.status === 'rejected') throw found.reason;
  if (!found.value) throw vanished(name);
  return found.value;
}

/** A volume that was there a moment ago. @throws ZvolError `ABORTED` */
export async function present(keeper: Keeper, name: string): Promise<Volume> {
  const volume = await readVolume(keeper.zfs, keeper.pool, name);
  if (volume) return volume;
  throw vanished(name);
}

function vanished(name: string): ZvolError {
  return new ZvolError('ABORTED', `the volume "${name}" was taken away by somebody else meanwhile`);
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

/**
 * Gives a volume another name.
 * @throws ZvolError `ALREADY_EXISTS`, `FAILED_PRECONDITION` while it is used, `DEADLINE_EXCEEDED` if it has the name, and its device does
 *   not come
 */
export async function renameVolume(keeper: Keeper, word: string, newName: string): Promise<Volume> {
  checkName('the volume', newName, `${keeper.pool}/`);
  let others: Others = { origin: '' };
  const work = withVolume(keeper, word, [lockOf.volume(newName)], async (volume) => {
    const { name } = volume;
    if (name === newName) return volume;
    refuseFor(`the volume "${name}" is in use`, await keeper.machine.usersOf(volume.path));
    const dataset = `${keeper.pool}/${newName}`;
    await keeper.zfs.change('zfs', 'rename', volume.dataset, dataset);
    // Templates of its snapshots have other full names from now on.
    keeper.templates.clear();
    others = { origin: volume.origin, dataset };
    const renamed = await present(keeper, newName);
    keeper.hub.tell({ kind: 'volume', volume: renamed });
    try {
      await keeper.machine.awaitDevice(deviceOf(keeper, dataset), true);
    } catch (error) {
      const code = error instanceof ZvolError ? error.code : 'INTERNAL';
      throw new ZvolError(
        code,
        `the volume "${name}" is called "${newName}" now, but ${wordsOf(error)}`,
        error,
      );
    }
    return renamed;
  });
  try {
    return await work;
  } finally {
    await tellOthers(keeper, others);
  }
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

/** Whom a change to a volume concerns beside itself. */
interface Others {
  /** The snapshot whose clones have changed: it may be a template, and its volume names its clones. Empty for none. */
  readonly origin: string;
  /** The volume whose templates are elsewhere now. */
  readonly dataset?: string;
}

/**
 * Tells watchers of these. Nobody may call it who has a lock: it takes those under which all else of them is told, so that the last that
 * is told of them is what they are.
 */
export async function tellOthers(keeper: Keeper, { origin, dataset = '' }: Others): Promise<void> {
  if (!keeper.hub.isWatched || (origin === '' && dataset === '')) return;
  const [parent = ''] = origin.split('@');
  const locks = [lockOf.templates, lockOf.volume(parent.slice(keeper.pool.length + 1))];
  try {
    await holding(keeper, locks, async () => {
      const { volumes, templates } = await inventory(keeper);
      for (const volume of volumes)
        if (volume.dataset === parent) keeper.hub.tell({ kind: 'volume', volume });
      for (const template of templates) {
        const { fullName } = template.snapshot;
        if (fullName === origin || fullName.startsWith(`${dataset}@`))
          keeper.hub.tell({ kind: 'template', template });
      }
    });
  } catch {
    // What was done is done: watchers see this with the next thing that they are told of it.
  }
}
