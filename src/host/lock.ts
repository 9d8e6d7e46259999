import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { tryLock } from 'fs-native-extensions';
import { Failure, messageOf } from '../core/errors.ts';
import { makePrivateFolder, readIfExists } from './files.ts';

export interface Lock {
  release(): Promise<void>;
}

/**
 * Takes an exclusive lock that dies with its holder (a lock of the kernel on an open file). The file stays: removing
 * it would let two holders lock two files of one name.
 * @throws Failure `locked` that names the holder, if somebody has it.
 */
export async function lock(path: string, what: string): Promise<Lock> {
  const file = await openLock(path);
  if (!(await tryLockPatiently(file))) {
    const holder = readIfExists(path)?.trim();
    await file.close();
    throw new Failure(
      'locked',
      `${what} is being changed by another zfsdev${holder ? ` (process ${holder})` : ''}`,
      {
        hint: 'wait until it is done, then try again',
        data: { holder: holder ?? null },
      },
    );
  }
  return held(file);
}

/** As `lock`, but waits for the present holder to let go; ends by success or by the signal. */
export async function lockWaiting(path: string, signal: AbortSignal): Promise<Lock> {
  const file = await openLock(path);
  try {
    await lockOpenFile(file, signal);
  } catch (error) {
    await file.close();
    throw error;
  }
  return held(file);
}

/**
 * Locks a file that is open for writing, until it is closed; waits for the present holder to let go.
 * @throws Failure `interrupted` when the signal is aborted first.
 */
export async function lockOpenFile(file: FileHandle, signal: AbortSignal): Promise<void> {
  try {
    // Polled, because the kernel's blocking wait can't be called off.
    while (!tryLock(file.fd)) await setTimeout(25, undefined, { signal });
  } catch (error) {
    if (signal.aborted)
      throw new Failure('interrupted', 'interrupted while another zfsdev was at work', { cause: error });
    throw error;
  }
}

/**
 * `isLocked` can only ask by taking the lock for an instant; without a second look, a `list` at the wrong moment would
 * make an `up` fail.
 */
async function tryLockPatiently(file: FileHandle): Promise<boolean> {
  for (let attempt = 0; attempt < 10; attempt += 1) {
    if (tryLock(file.fd)) return true;
    await setTimeout(10);
  }
  return tryLock(file.fd);
}

/** True if somebody holds the lock now. */
export async function isLocked(path: string): Promise<boolean> {
  if (readIfExists(path) === undefined) return false;
  const file = await openLock(path);
  try {
    return !tryLock(file.fd);
  } finally {
    await file.close();
  }
}

async function openLock(path: string): Promise<FileHandle> {
  await makePrivateFolder(dirname(path));
  try {
    return await open(path, 'a+', 0o600);
  } catch (error) {
    throw new Failure('files', `the lock ${path} can't be opened: ${messageOf(error)}`, { cause: error });
  }
}

async function held(file: FileHandle): Promise<Lock> {
  try {
    await file.truncate(0);
    await file.write(`${process.pid}\n`);
  } catch {
    // It only tells people who holds the lock; on a full disk it is held all the same.
  }
  return { release: () => file.close() };
}
