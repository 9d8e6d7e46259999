import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import checkDiskSpaceModule from 'check-disk-space';
import { Failure, hasCode, messageOf } from '../core/errors.ts';

// The package is CommonJS with a default export; Node and bundlers disagree on where that lands.
const checkDiskSpace =
  typeof checkDiskSpaceModule === 'function'
    ? checkDiskSpaceModule
    : (checkDiskSpaceModule as { default: typeof checkDiskSpaceModule.default }).default;

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
    const [{ dev }, { free, size }] = await Promise.all([stat(present), checkDiskSpace(present)]);
    return { device: dev, path: present, free, total: size };
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
