import { lstat, readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { exists } from '../host/files.ts';

/** A Lima instance as its folder shows it; limactl isn't asked, and need not be there. */
export interface LimaInstance {
  readonly name: string;
  readonly folder: string;
  readonly running: boolean;
  /** Its disks, each once, whichever names lead to it. */
  readonly disks: readonly string[];
  /** Why it could not be looked at, or what is wrong with it. */
  readonly problem?: string;
}

/** Up to 2.0 the machine's disk is `diffdisk` on `basedisk`; from 2.1 it is `disk`, and old ones have links of the new names. */
const diskNames = ['diffdisk', 'disk', 'basedisk', 'image', 'iso'];
/** Of these, what holds the machine's own data. */
const ownDisks = ['diffdisk', 'disk'];

/** Where this user's limactl keeps its instances. */
export function limaHome(env: Readonly<NodeJS.ProcessEnv>): string {
  return env['LIMA_HOME'] ?? join(env['HOME'] ?? homedir(), '.lima');
}

/** All instances in one of Lima's homes. @throws Failure `files` if it can't be read. */
export async function limaInstances(home: string): Promise<LimaInstance[]> {
  let names: string[];
  try {
    names = (await readdir(home)).filter((name) => !/^[._]/.test(name)).sort();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return [];
    throw new Failure('files', `${home} can't be listed: ${messageOf(error)}`, { cause: error });
  }
  const found = await Promise.all(
    names.map(async (name) => {
      const folder = join(home, name);
      try {
        return await limaInstance(name, folder);
      } catch (error) {
        return { name, folder, running: false, disks: [], problem: messageOf(error) };
      }
    }),
  );
  return found.filter((instance) => instance !== undefined);
}

/** One instance by its folder; undefined if there is none. @throws Failure `files`, Error if it can't be looked at. */
export async function limaInstance(name: string, folder: string): Promise<LimaInstance | undefined> {
  if (!exists(join(folder, 'lima.yaml'))) return undefined;
  const disks = new Map<string, string>();
  for (const path of diskNames.map((disk) => join(folder, disk))) {
    try {
      const { dev, ino } = await stat(path);
      if (!disks.has(`${dev}:${ino}`)) disks.set(`${dev}:${ino}`, path);
    } catch (error) {
      // A link that leads nowhere is a disk that is lost, which its row is to say.
      if (hasCode(error, 'ENOENT') && !(await isLink(path))) continue;
      disks.set(path, path);
    }
  }
  const found = { name, folder, running: await runs(folder), disks: [...disks.values()] };
  // A creation that was cut off leaves a folder without one, or with the image that it was to stand on.
  const whole = found.disks.some((path) => ownDisks.includes(basename(path)));
  return whole ? found : { ...found, problem: 'its disk is missing' };
}

async function runs(folder: string): Promise<boolean> {
  for (const name of ['qemu.pid', 'vz.pid', 'ha.pid']) {
    try {
      const pid = Number((await readFile(join(folder, name), 'utf8')).trim());
      if (!(pid > 1)) continue;
      process.kill(pid, 0);
      return true;
    } catch (error) {
      if (hasCode(error, 'EPERM')) return true;
    }
  }
  return false;
}

async function isLink(path: string): Promise<boolean> {
  return lstat(path).then(
    (found) => found.isSymbolicLink(),
    () => false,
  );
}
