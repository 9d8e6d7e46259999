import { lstatSync, statSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { exists } from '../host/files.ts';
import { leadsTo } from '../host/system-folders.ts';
import { makeWholeFile, notMade } from '../host/whole-file.ts';
import { withFilesOfAll } from '../vm/disk-admission.ts';
import { backingChain, clashOf, usesOfOthers } from '../vm/storage-users.ts';

/** A file of the user's that a disk is written to. */
export interface TargetFile {
  readonly path: string;
  /** It may take the place of a file that is there, once it is whole. */
  readonly overwrite: boolean;
}

/**
 * Looks whether a file may be written where the user wants it, before anything is done for it.
 * @param source the disk that it is written from, which stays as it is, with all that it stands on
 * @throws Failure `not-found`, `already-exists` also for a file that a machine uses, `files`, `usage` for the source itself
 */
export async function requireTarget(
  ctx: Context,
  { path, overwrite }: TargetFile,
  source: string,
): Promise<void> {
  if (!exists(dirname(path)))
    throw new Failure('not-found', `there is no folder ${dirname(path)}`, {
      hint: 'make it first, or name another',
    });
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return;
  if (!found.isFile()) {
    const kind = found.isSymbolicLink() ? 'a symbolic link' : found.isDirectory() ? 'a folder' : 'not a file';
    throw new Failure('files', `${path} is ${kind}, and nothing is written through it`, {
      hint: 'name the file itself',
    });
  }
  const same = statSync(source);
  if (same.dev === found.dev && same.ino === found.ino) {
    throw new Failure('usage', `${path} can't be written from itself`, {
      hint: 'name another file; for a disk of a machine: zfsdev disk change INSTANCE NAME --type',
    });
  }
  if (backingChain(source).includes(leadsTo(path))) {
    throw new Failure('usage', `${source} stands on ${path}, which would change under it`, {
      hint: 'name another file',
    });
  }
  if (!overwrite) throw taken(path);
  await refuseUsed(ctx, path);
}

/**
 * Writes a file of the user's, whole or not at all.
 * @throws Failure `already-exists`, `locked`, `no-space`, `files`, `interrupted`, whatever `fill` throws
 */
export async function makeTarget(
  ctx: Context,
  { path, overwrite }: TargetFile,
  fill: (file: string) => Promise<void>,
): Promise<void> {
  const replace = (file: string, place: string): Promise<void> => replaceUnused(ctx, file, place);
  try {
    await makeWholeFile(ctx, path, { fill, ...(overwrite ? { put: replace } : {}) });
  } catch (error) {
    throw notMade(`${path} can't be made`, dirname(path), error);
  }
}

/** Hours may have gone by since the first look, and a machine may have been given the file. */
function replaceUnused(ctx: Context, file: string, place: string): Promise<void> {
  return withFilesOfAll(ctx, async () => {
    await refuseUsed(ctx, place);
    await rename(file, place);
  });
}

/** @throws Failure `already-exists` for what a machine uses, or stands on */
async function refuseUsed(ctx: Context, path: string): Promise<void> {
  const clash = clashOf({ path, writes: true }, await usesOfOthers(ctx));
  if (!clash) return;
  throw new Failure('already-exists', `${path} is in use as ${clash.what}, and is not replaced`, {
    hint: 'name another file',
    data: { path },
  });
}

function taken(path: string): Failure {
  return new Failure('already-exists', `there is a file ${path} already`, {
    hint: 'name another one, or --overwrite replaces it once the new one is whole',
    data: { path },
  });
}
