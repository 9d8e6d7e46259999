import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';

export interface HostFilesystem {
  /** Tells filesystems apart: the device number of its files. */
  readonly device: number;
  /** The folder that was asked about, or the nearest parent that exists. */
  readonly path: string;
  /** Bytes that this user can still write. */
  readonly free: number;
  readonly total: number;
}

/** The filesystem that holds a path, which need not exist yet. */
export async function filesystemOf(path: string): Promise<HostFilesystem> {
  const present = await nearestExisting(path);
  try {
    const [{ dev }, { bsize, bavail, blocks }] = await Promise.all([stat(present), statfs(present)]);
    return { device: dev, path: present, free: bavail * bsize, total: blocks * bsize };
  } catch (error) {
    throw new Failure('files', `the free space at ${present} can't be asked: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

async function nearestExisting(path: string): Promise<string> {
  for (let candidate = path; ; candidate = dirname(candidate)) {
    try {
      await stat(candidate);
      return candidate;
    } catch (error) {
      if (!hasCode(error, 'ENOENT') || dirname(candidate) === candidate) {
        throw new Failure('files', `${candidate} can't be looked at: ${messageOf(error)}`, { cause: error });
      }
    }
  }
}
