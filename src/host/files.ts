import { randomBytes } from 'node:crypto';
import { constants, closeSync, fstatSync, openSync, readFileSync, statSync, type Stats } from 'node:fs';
import { mkdir, open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';

/** Makes a folder that is the owner's alone, parents included. */
export async function makePrivateFolder(path: string): Promise<void> {
  try {
    await makeFolders(path);
  } catch (error) {
    throw new Failure('files', `the folder ${path} can't be made: ${messageOf(error)}`, {
      hint: 'make it writable, or point ZFSDEV_HOME at a folder of yours',
      cause: error,
    });
  }
}

/** One level at a time: Node's own recursive mkdir never returns where a parent is there and refuses with ENOENT (/proc). */
async function makeFolders(path: string, mayRecurse = true): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, 'EEXIST') && (await stat(path)).isDirectory()) return;
    if (!hasCode(error, 'ENOENT') || !mayRecurse || dirname(path) === path) throw error;
    await makeFolders(dirname(path));
    await makeFolders(path, false);
  }
}

/** Writes beside, flushes, renames: readers see the old file or the new one, whole. Mode 0600 unless told. */
export async function writeFileAtomically(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new Failure('files', `${path} can't be written: ${messageOf(error)}`, {
      hint: hasCode(error, 'ENOSPC', 'EDQUOT') ? 'make room there, then try again' : 'check its permissions',
      cause: error,
    });
  }
}

/** What it is that has no content of its own to be read (a pipe would let its reader wait for ever); undefined for files. */
export function specialKind(found: Stats): string | undefined {
  if (found.isFIFO()) return 'a pipe';
  if (found.isSocket()) return 'a socket';
  return found.isCharacterDevice() || found.isBlockDevice() ? 'a device' : undefined;
}

/** Not blocking: to open a pipe that nobody writes to would never return. */
const readOnly = constants.O_RDONLY | constants.O_NONBLOCK;

/**
 * Opens a file for reading, and closes it whatever happens.
 * @throws Failure of `work` as it is; `files` for anything else, the file's own trouble.
 */
export async function withFile<T>(
  path: string,
  work: (file: FileHandle, found: Stats) => Promise<T>,
): Promise<T> {
  try {
    const file = await open(path, readOnly);
    try {
      return await work(file, fileOnly(await file.stat()));
    } finally {
      await file.close();
    }
  } catch (error) {
    throw unreadable(path, error);
  }
}

/**
 * As `withFile`, at once, for a look at a few bytes: hundreds of files are looked at in a row, and handing each step of it
 * to a thread costs ten times as much as the step.
 */
export function withFileNow<T>(path: string, work: (fd: number, found: Stats) => T): T {
  try {
    const fd = openSync(path, readOnly);
    try {
      return work(fd, fileOnly(fstatSync(fd)));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw unreadable(path, error);
  }
}

function fileOnly(found: Stats): Stats {
  const special = specialKind(found);
  if (special) throw new Error(`it is ${special}, not a file`);
  return found;
}

function unreadable(path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const why = hasCode(error, 'ENOENT') ? 'it is not there' : messageOf(error);
  return new Failure('files', `${path} can't be read: ${why}`, { cause: error });
}

// These three look at once, as `withFileNow` does, and for its reason.

/** Reads a small file, or gives undefined if it does not exist; any other trouble is a Failure. */
export function readIfExists(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw new Failure('files', `${path} can't be read: ${messageOf(error)}`, { cause: error });
  }
}

/** True if something is there; a Failure if that could not be asked. */
export function exists(path: string): boolean {
  return lookAt(path) !== undefined;
}

/** Blocks on the host in bytes: `st_blocks * 512`, never the file's length. 0 if it does not exist. */
export function actualSize(path: string): number {
  return (lookAt(path)?.blocks ?? 0) * 512;
}

function lookAt(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if (hasCode(error, 'ENOTDIR')) return undefined;
    throw new Failure('files', `${path} can't be looked at: ${messageOf(error)}`, { cause: error });
  }
}

/** Has a file's content, or a folder's names, written to the disk of the host, where a power cut leaves them. */
export async function flush(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Makes an empty file of mode 0600 for a program that writes into it.
 * @throws Failure `already-exists` (nothing is overwritten), `files`
 */
export async function claimFile(path: string): Promise<void> {
  try {
    await (await open(path, 'wx', 0o600)).close();
  } catch (error) {
    const taken = hasCode(error, 'EEXIST');
    throw new Failure(
      taken ? 'already-exists' : 'files',
      taken ? `there is a file at ${path} already` : `${path} can't be made: ${messageOf(error)}`,
      {
        hint: taken ? `look at it: ls -l ${path}` : `check ${dirname(path)} and its permissions`,
        cause: error,
      },
    );
  }
}
