import { createHash } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { link, lstat, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from './context.ts';
import { claimFile, flush } from './files.ts';
import { isLocked, lock, lockWaiting } from './lock.ts';
import { unfinishedFile } from './paths.ts';
import { leadsTo } from './system-folders.ts';

/** How a file is made that is there whole or not at all. */
export interface Making {
  /** Fills the file, which is there, empty, and of mode 0600. */
  readonly fill: (file: string) => Promise<void>;
  /** What has to be done once nobody else is at it, and before the file is made: folders, say. */
  readonly prepare?: () => Promise<void>;
  /** Gives the finished file its name; without, `putInFreePlace` does, and what is there already is refused at once. */
  readonly put?: (file: string, place: string) => Promise<void>;
  /** Waits while another zfsdev makes the same file; refused without. */
  readonly waits?: boolean;
}

/**
 * Makes a file beside its place, under a name that only its maker uses, flushes it and gives it its own name: whenever this is cut
 * off, there is nothing new there, or all of it. Nothing is made through a link. What a maker left that was killed goes.
 * @returns where it lies, links on the way there resolved
 * @throws Failure `already-exists`, `locked` while another zfsdev makes the same file, `interrupted`; errors of Node's own
 *   (`notMade`), and whatever `Making` throws
 */
export async function makeWholeFile(
  ctx: Pick<Context, 'paths' | 'signal'>,
  path: string,
  { fill, prepare, put, waits = false }: Making,
): Promise<string> {
  const place = placeIn(path);
  const lockFile = ctx.paths.lock(lockName(place));
  const held = waits ? await lockWaiting(lockFile, ctx.signal) : await lock(lockFile, path);
  try {
    if (put === undefined && isTaken(place)) throw taken(path);
    await prepare?.();
    await withUndo(async (undo) => {
      const unfinished = unfinishedFile(place);
      // Whoever made it held this lock.
      await rm(unfinished, { force: true });
      undo.add('the unfinished file', () => rm(unfinished, { force: true }));
      await claimFile(unfinished);
      await fill(unfinished);
      if (!(await lstat(unfinished)).isFile()) throw new Error(`${unfinished} is no regular file any more`);
      await flush(unfinished);
      await (put ?? putInFreePlace)(unfinished, place);
      if (put === undefined) undo.add('the file', () => rm(place, { force: true }));
      await flush(dirname(place));
    });
    return place;
  } finally {
    await held.release();
  }
}

/** What `link` says on file systems that have no hard links, or no more of them for this file. */
const withoutLinks = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'] as const;

/**
 * Gives a file another name in its folder, and never takes the place of something else: not even of what appears at this moment.
 * @param hardLink as `link` of Node; a link, unlike a rename, replaces nothing
 * @throws Failure `already-exists`; errors of Node's own, and the file has its old name then
 */
export async function putInFreePlace(file: string, place: string, hardLink = link): Promise<void> {
  try {
    await hardLink(file, place);
  } catch (error) {
    if (hasCode(error, 'EEXIST')) throw taken(place, error);
    if (!hasCode(error, ...withoutLinks)) throw error;
    return renameOverClaim(file, place);
  }
  await rm(file);
}

/** Without links: the name is taken by an empty file, as only one can; that is the one which the rename replaces. */
async function renameOverClaim(file: string, place: string): Promise<void> {
  let claim;
  try {
    claim = await open(place, 'wx', 0o600);
  } catch (error) {
    throw hasCode(error, 'EEXIST') ? taken(place, error) : error;
  }
  try {
    await rename(file, place);
  } catch (error) {
    const there = await lstat(place).catch(() => undefined);
    if (there?.ino === (await claim.stat()).ino) await rm(place, { force: true });
    throw error;
  } finally {
    await claim.close();
  }
}

/** Whether something has this name, also a link that leads nowhere. @throws errors of Node's own if that can't be told */
export function isTaken(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

function taken(path: string, cause?: unknown): Failure {
  return new Failure('already-exists', `there is something at ${path} already`, {
    hint: `look at it: ls -l ${path}`,
    data: { path },
    cause,
  });
}

/** Removes what makers of these files left that were killed; whoever is at one now goes on. */
export async function sweepUnfinished(ctx: Pick<Context, 'paths'>, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const place = placeIn(path);
    if (await isLocked(ctx.paths.lock(lockName(place)))) continue;
    await rm(unfinishedFile(place), { force: true }).catch(() => undefined);
  }
}

/** Where a file is made: two names of one folder have the same maker. What a link by the file's own name leads to is not meant. */
function placeIn(path: string): string {
  return join(leadsTo(dirname(path)), basename(path));
}

function lockName(place: string): string {
  return `file-${createHash('sha256').update(place).digest('hex').slice(0, 24)}`;
}

/** The failure for a file that could not be made; failures stay what they are. */
export function notMade(what: string, folder: string, error: unknown): unknown {
  if (error instanceof Failure) return error;
  const full = hasCode(error, 'ENOSPC', 'EDQUOT');
  return new Failure(full ? 'no-space' : 'files', `${what}: ${messageOf(error)}`, {
    hint: full ? 'zfsdev usage tells what takes the room' : `check ${folder} and its permissions`,
    cause: error,
  });
}
