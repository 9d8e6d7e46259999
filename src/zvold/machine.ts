import { existsSync } from 'node:fs';
import { open, readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { ZvolError } from './errors.ts';

/** What zvold needs to know of the machine beside ZFS; the tests have one of their own. */
export interface Machine {
  /** Where the devices of zvols are, by the names of their datasets. */
  readonly devices: string;
  /** Waits for a device to come (or to go). @throws ZvolError `DEADLINE_EXCEEDED` */
  awaitDevice(path: string, present: boolean): Promise<void>;
  /** Who uses a device: mount points and processes, in words; nobody if it is not there. */
  usersOf(path: string): Promise<string[]>;
  /** Has all that was written to a device reach ZFS. */
  flush(path: string): Promise<void>;
  /** The state of a pool in ZFS's word; undefined if it is not imported. Asks no process, and never hangs. */
  poolState(pool: string): Promise<string | undefined>;
}

const deviceDeadline = 30_000;

export const thisMachine: Machine = {
  devices: '/dev/zvol',
  awaitDevice: async (path, present) => {
    const end = performance.now() + deviceDeadline;
    while (existsSync(path) !== present) {
      if (performance.now() > end)
        throw new ZvolError(
          'DEADLINE_EXCEEDED',
          `the device ${path} did not ${present ? 'come' : 'go'} in ${deviceDeadline / 1000} s: does udev run?`,
        );
      await delay(5);
    }
  },
  usersOf: async (path) => {
    const device = await realpath(path).catch(() => undefined);
    if (device === undefined) return [];
    return [...(await mountsOf(device)), ...(await processesWith(device))];
  },
  flush: async (path) => {
    const file = await open(path, 'r+');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  },
  poolState: async (pool) => {
    try {
      return (await readFile(`/proc/spl/kstat/zfs/${pool}/state`, 'utf8')).trim();
    } catch {
      return undefined;
    }
  },
};

/** The device itself, or a partition of it. */
function belongsTo(device: string, path: string): boolean {
  return path === device || (path.startsWith(`${device}p`) && /^\d+$/.test(path.slice(device.length + 1)));
}

async function mountsOf(device: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' '));
  const sources = await Promise.all(lines.map(([source = '']) => realpath(source).catch(() => source)));
  return lines.flatMap(([, target = ''], index) =>
    belongsTo(device, sources[index] ?? '') ? [`mounted at ${target}`] : [],
  );
}

async function processesWith(device: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const users = await Promise.all(
    pids.map(async (pid) => {
      const folder = `/proc/${pid}/fd`;
      const fds = await readdir(folder).catch(() => []);
      const targets = await Promise.all(fds.map((fd) => readlink(`${folder}/${fd}`).catch(() => '')));
      if (!targets.some((target) => belongsTo(device, target))) return undefined;
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
      return `open in ${name.trim() || 'a process'} (${pid})`;
    }),
  );
  return users.filter((user) => user !== undefined);
}
