import { createHash } from 'node:crypto';
import { constants, lstatSync } from 'node:fs';
import { link, lstat, mkdir, open, rename, rm, rmdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { withUndo, type UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { isLocked, lockWaiting } from '../host/lock.ts';
import { unfinishedFile } from '../host/paths.ts';
import { printable } from '../host/run.ts';
import { createQcow2 } from '../qemu/img-create.ts';
import { attachedStorage, disksAmong, type DiskDevice } from '../template/storage.ts';
import type { Instance } from './instance.ts';
import type { State } from './state.ts';
import { checkStorage, type PlacedDisk } from './storage-check.ts';
import { placeOf } from './storage-places.ts';
import { leadsTo } from './storage-users.ts';

/**
 * Makes the disks of a machine's storage whose files aren't there, and looks at all others (see `checkStorage`). Each file that
 * was made is registered to be taken away again, with the folders that were made for it.
 * @throws Failure as `checkStorage`, and `no-space`, `process`, `interrupted`
 */
export async function layOutStorage(ctx: Context, { spec, state }: Instance, undo: UndoStack): Promise<void> {
  const { missing, notices } = await checkStorage(ctx, {
    name: spec.name,
    storage: attachedStorage(spec.storage),
  });
  for (const text of notices) ctx.emit({ type: 'notice', level: 'warning', text });
  const places = disksAmong(attachedStorage(spec.storage)).map((disk) => placeOf(ctx, spec.name, disk));
  await sweepUnfinished(ctx, places);
  for (const { disk, path } of missing) {
    if (state.storage?.[disk.name] === path) throw vanished(disk, path);
  }
  for (const placed of missing) {
    const { disk, path } = placed;
    await step(
      ctx.emit,
      'disk',
      `Creating the ${disk.type} disk "${disk.name}", ${path}`,
      () => createDisk(ctx, placed, undo),
      () => (disk.size === undefined ? 'of the size of its backing file' : formatBytes(disk.size)),
    );
  }
}

/** An empty disk in the place of one that the machine had would look like lost data, or hide that it can be had back. */
function vanished({ name, type, size }: DiskDevice, path: string): Failure {
  const command = printable([
    'qemu-img',
    'create',
    '-f',
    type,
    path,
    ...(size === undefined ? [] : [String(size)]),
  ]);
  return new Failure('files', `the disk "${name}" is gone, which the machine had when it last ran: ${path}`, {
    hint: `put it back (is its file system mounted?); or go on with an empty one: ${command}`,
    data: { disk: name, path },
  });
}

/** What is remembered of a machine that runs: where its disks are, as they are expected there from now on. */
export function placesOf(
  ctx: Context,
  { name, spec }: Pick<Instance, 'name' | 'spec'>,
): Pick<State, 'storage'> {
  const disks = disksAmong(attachedStorage(spec.storage));
  if (disks.length === 0) return {};
  return { storage: Object.fromEntries(disks.map((disk) => [disk.name, placeOf(ctx, name, disk)])) };
}

/**
 * Makes one disk that isn't there: beside its place, under a name that only its creator uses, and put in place whole. Nothing is
 * overwritten, nothing is made through a link, and whenever this is cut off, there is no disk, or all of it.
 * @param content fills the new file, which is empty; the disk is empty without
 * @throws Failure `already-exists` if somebody else made it meanwhile, `files`, `no-space`, `process`, `interrupted`
 */
export async function createDisk(
  ctx: Context,
  { disk, path }: PlacedDisk,
  undo: UndoStack,
  content?: (file: string) => Promise<void>,
): Promise<void> {
  const place = placeIn(path);
  const held = await lockWaiting(ctx.paths.lock(lockName(place)), ctx.signal);
  try {
    await makeParents(dirname(place), undo);
    await withUndo(async (half) => {
      const unfinished = unfinishedFile(place);
      // What a creator left that was killed: whoever made it held this lock.
      await removeFile(unfinished);
      half.add('the half-made disk', () => removeFile(unfinished));
      await fill(ctx, disk, unfinished, content);
      await putInPlace(unfinished, place);
    });
    undo.add(`the file ${place}`, () => removeFile(place));
  } catch (error) {
    throw told(disk, path, error);
  } finally {
    await held.release();
  }
}

/** Where a file is made: two names of one folder have the same creator. What a link by its own name leads to is not meant. */
function placeIn(path: string): string {
  return join(leadsTo(dirname(path)), basename(path));
}

function lockName(place: string): string {
  return `disk-${createHash('sha256').update(place).digest('hex').slice(0, 24)}`;
}

/** The owner's alone, one by one; those that were made are to be taken away if they are empty then. */
async function makeParents(folder: string, undo: UndoStack): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, 'EEXIST') && (await stat(folder)).isDirectory()) return;
    if (!hasCode(error, 'ENOENT') || dirname(folder) === folder) throw error;
    await makeParents(dirname(folder), undo);
    await mkdir(folder, { mode: 0o700 });
  }
  undo.add(`the folder ${folder}`, () => rmdir(folder).catch(() => undefined));
}

async function fill(
  ctx: Context,
  disk: DiskDevice,
  file: string,
  content?: (file: string) => Promise<void>,
): Promise<void> {
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const handle = await open(file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    // The guest's size at once, without the blocks: what it discards goes back to being a hole, too.
    if (content) await content(file);
    else if (disk.type === 'raw') await handle.truncate(disk.size ?? 0);
    else await createQcow2(ctx, { ...qcow2Of(disk), path: file });
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function qcow2Of({
  size,
  format,
  backingFile,
  backingFormat = 'qcow2',
}: DiskDevice): Omit<Parameters<typeof createQcow2>[1], 'path'> {
  return {
    size,
    clusterSize: format?.clusterSize,
    compression: format?.compression,
    passphraseFile: format?.passphraseFile,
    backing: backingFile === undefined ? undefined : { path: backingFile, format: backingFormat },
  };
}

/** A link, unlike a rename, never takes the place of something else. */
async function putInPlace(file: string, place: string): Promise<void> {
  if (!(await lstat(file)).isFile()) throw new Error(`${file} is no regular file any more`);
  try {
    await link(file, place);
    await rm(file);
  } catch (error) {
    if (!hasCode(error, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK')) throw error;
    // A file system without links: the name is taken first, by an empty file that is ours.
    await (await open(place, 'wx', 0o600)).close();
    await rename(file, place);
  }
  await flushFolder(dirname(place));
}

async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Never what is a folder by now. */
async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true });
}

function told({ name }: DiskDevice, path: string, error: unknown): unknown {
  const what = `the disk "${name}" can't be made at ${path}`;
  if (error instanceof Failure) {
    if (error.reason === 'interrupted') return error;
    const { hint, detail, data } = error;
    return new Failure(error.reason, `${what}: ${error.message}`, {
      ...(hint === undefined ? {} : { hint }),
      ...(detail === undefined ? {} : { detail }),
      data,
      cause: error,
    });
  }
  if (hasCode(error, 'EEXIST')) {
    return new Failure('already-exists', `${what}: somebody else has put something there meanwhile`, {
      hint: `look at it: ls -l ${path}`,
      cause: error,
    });
  }
  const full = hasCode(error, 'ENOSPC', 'EDQUOT');
  return new Failure(full ? 'no-space' : 'files', `${what}: ${messageOf(error)}`, {
    hint: full ? 'zfsdev usage tells what takes the room' : `check ${dirname(path)} and its permissions`,
    cause: error,
  });
}

/**
 * Removes what a creator that was killed left of a machine's disks, which was nobody's disk yet; whoever is at one now goes on.
 */
export async function sweepUnfinished(ctx: Context, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const place = placeIn(path);
    if (await isLocked(ctx.paths.lock(lockName(place)))) continue;
    await removeFile(unfinishedFile(place)).catch(() => undefined);
  }
}

/** Says which files of a machine that was deleted are still there: those that the user named are the user's own. */
export async function tellOfFilesThatStay(ctx: Context, { name, spec }: Instance): Promise<void> {
  const own = disksAmong(spec.storage).filter(({ file, readonly }) => file !== undefined && !readonly);
  const paths = own.map((disk) => placeOf(ctx, name, disk));
  await sweepUnfinished(ctx, paths);
  const present = paths.filter((path) => lstatSync(path, { throwIfNoEntry: false }) !== undefined);
  if (present.length === 0) return;
  const text = `left where they are, as your template names them: ${present.join(', ')}`;
  ctx.emit({ type: 'notice', level: 'info', text });
}
