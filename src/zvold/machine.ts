import { readFileSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { wordsOf, ZvolError } from './errors.ts';
import { claimsOf, processesWith } from './users.ts';

/** What zvold needs to know of the machine beside ZFS; the tests have one of their own. */
export interface Machine {
  /** Where the devices of zvols are, by the names of their datasets. */
  readonly devices: string;
  /** Waits for a device to come (or to go). @throws ZvolError `DEADLINE_EXCEEDED` */
  awaitDevice(path: string, present: boolean): Promise<void>;
  /**
   * What the kernel keeps a device for, in words: mounts, swap, LVM and the like, loop devices; nothing if it is not there.
   * Costs a few reads.
   */
  claimsOf(path: string): Promise<string[]>;
  /** That, and every process that has it open, or a part of it; looks at all processes. */
  usersOf(path: string): Promise<string[]>;
  /** Has all that was written to a device reach ZFS. @throws ZvolError `RESOURCE_EXHAUSTED`, `DATA_LOSS` */
  flush(path: string): Promise<void>;
  /** The state of a pool in ZFS's word; undefined if it is not imported. Asks no process, and never hangs. */
  poolState(pool: string): Promise<string | undefined>;
}

/** Milliseconds: udev handles one device after the other, and many may come at once where everything is slow. */
const deviceDeadline = 120_000;

export const thisMachine: Machine = {
  devices: '/dev/zvol',
  awaitDevice: async (path, present) => {
    const end = performance.now() + deviceDeadline;
    while (isThere(path) !== present) {
      if (performance.now() > end)
        throw new ZvolError(
          'DEADLINE_EXCEEDED',
          `the device ${path} did not ${present ? 'come' : 'go'} in ${deviceDeadline / 1000} s: does udev run?`,
        );
      await delay(2);
    }
  },
  claimsOf: (path) => claimsOf(path),
  usersOf: async (path) => [...(await claimsOf(path)), ...(await processesWith(path))],
  flush,
  poolState: async (pool) => {
    try {
      // At once: what reads and writes files by the way may all hang on a pool that is suspended, and this would wait behind it.
      return await Promise.resolve(readFileSync(`/proc/spl/kstat/zfs/${pool}/state`, 'utf8').trim());
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw new ZvolError('UNAVAILABLE', `the state of the pool ${pool} can't be read: ${wordsOf(error)}`);
    }
  },
};

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');

/** At once: a folder of devices keeps nobody waiting, and to have another thread look costs more than the look. */
function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw new ZvolError('UNAVAILABLE', `${path} can't be looked at: ${wordsOf(error)}`);
  }
}

async function flush(path: string): Promise<void> {
  try {
    // To read is enough, and closing it then has udev look at nothing.
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    // Through a device that is not there nothing was written.
    if (isMissing(error)) return;
    const full = error instanceof Error && 'code' in error && error.code === 'ENOSPC';
    throw new ZvolError(
      full ? 'RESOURCE_EXHAUSTED' : 'DATA_LOSS',
      `what was written to ${path} did not all reach the pool: ${wordsOf(error)}`,
      error,
    );
  }
}
