import { randomBytes } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
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

/**
 * Opens a file for reading, and closes it whatever happens.
 * @throws Failure of `work` as it is; `files` for anything else, the file's own trouble.
 */
export async function withFile<T>(
  path: string,
  work: (file: FileHandle, found: Stats) => Promise<T>,
): Promise<T> {
  try {
    // Not blocking: to open a pipe that nobody writes to would never return.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const found = await file.stat();
      const special = specialKind(found);
      if (special) throw new Error(`it is ${special}, not a file`);
      return await work(file, found);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    const why = hasCode(error, 'ENOENT') ? 'it is not there' : messageOf(error);
    throw new Failure('files', `${path} can't be read: ${why}`, { cause: error });
  }
}

/** Reads a file, or gives undefined if it does not exist; any other trouble is a Failure. */
export async function readIfExists(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw new Failure('files', `${path} can't be read: ${messageOf(error)}`, { cause: error });
  }
}

/** True if something is there; a Failure if that could not be asked. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return false;
    throw new Failure('files', `${path} can't be looked at: ${messageOf(error)}`, { cause: error });
  }
}

/** Blocks on the host in bytes: `st_blocks * 512`, never the file's length. 0 if it does not exist. */
export async function actualSize(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * 512;
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return 0;
    throw new Failure('files', `${path} can't be looked at: ${messageOf(error)}`, { cause: error });
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
      taken ? `there is a disk at ${path} already` : `${path} can't be made: ${messageOf(error)}`,
      { cause: error },
    );
  }
}
