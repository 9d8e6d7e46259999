import { mkdir, rm, rmdir, stat, truncate } from 'node:fs/promises';
import { dirname } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { Failure, hasCode } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import { leadsTo } from '../host/system-folders.ts';
import { isTaken, makeWholeFile, notMade, sweepUnfinished } from '../host/whole-file.ts';
import { createQcow2 } from '../qemu/img-create.ts';
import { attachedStorage, disksAmong, type DiskDevice } from '../template/storage.ts';
import type { Instance } from './instance.ts';
import type { StorageFile } from './machine-files.ts';
import type { State } from './state.ts';
import { checkStorage } from './storage-check.ts';
import { placeOf } from './storage-places.ts';

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
  return new Failure('files', `the disk "${name}" is gone, which the machine had: ${path}`, {
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
 * Makes one disk that isn't there, whole or not at all (`makeWholeFile`), with the folders that it lies in.
 * @param content fills the new file, which is empty; the disk is empty without
 * @throws Failure `already-exists` if somebody else made it meanwhile, `files`, `no-space`, `process`, `interrupted`
 */
export async function createDisk(
  ctx: Context,
  { disk, path }: StorageFile,
  undo: UndoStack,
  content: (file: string) => Promise<void> = (file) => layOutEmpty(ctx, disk, file),
): Promise<void> {
  try {
    const place = await makeWholeFile(ctx, path, {
      prepare: () => makeParents(leadsTo(dirname(path)), undo),
      fill: content,
      waits: true,
    });
    undo.add(`the file ${place}`, () => rm(place, { force: true }));
  } catch (error) {
    throw told(disk, path, error);
  }
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

/** The guest's size at once, without the blocks: what it discards goes back to being a hole, too. */
async function layOutEmpty(ctx: Context, disk: DiskDevice, file: string): Promise<void> {
  if (disk.type === 'raw') await truncate(file, disk.size ?? 0);
  else await createQcow2(ctx, { ...qcow2Of(disk), path: file });
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

function told({ name }: DiskDevice, path: string, error: unknown): unknown {
  const what = `the disk "${name}" can't be made at ${path}`;
  if (!(error instanceof Failure)) return notMade(what, dirname(path), error);
  if (error.reason === 'interrupted') return error;
  const { hint, detail, data } = error;
  return new Failure(error.reason, `${what}: ${error.message}`, {
    ...(hint === undefined ? {} : { hint }),
    ...(detail === undefined ? {} : { detail }),
    data,
    cause: error,
  });
}

/** Says which files of a machine that was deleted are still there: those that the user named are the user's own. */
export async function tellOfFilesThatStay(ctx: Context, { name, spec }: Instance): Promise<void> {
  const own = disksAmong(spec.storage).filter(({ file, readonly }) => file !== undefined && !readonly);
  const paths = own.map((disk) => placeOf(ctx, name, disk));
  await sweepUnfinished(ctx, paths);
  const present = paths.filter(isTaken);
  if (present.length === 0) return;
  const text = `left where they are, as your template names them: ${present.join(', ')}`;
  ctx.emit({ type: 'notice', level: 'info', text });
}
