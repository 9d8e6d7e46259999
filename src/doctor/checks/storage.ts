import { constants } from 'node:fs';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../../core/errors.ts';
import { GiB } from '../../core/bytes.ts';
import { parseName } from '../../core/names.ts';
import { filesystemOf } from '../../host/free-space.ts';
import { checkSocketPath, type Paths } from '../../host/paths.ts';
import type { Check, Finding } from '../check.ts';
import { isAllowed, type Host } from '../host.ts';

const GB = 10 ** 9;
const MB = 10 ** 6;

/** The sizing guide's figures: free space from which a kind of template is let in. */
const fits = [
  { from: 20 * GB, what: 'all templates' },
  { from: 10 * GB, what: 'zfs-test, zfs-small, combined; kernel-build wants 20 GB' },
  { from: 5 * GB, what: 'zfs-test, zfs-small; combined wants 10 GB, kernel-build 20 GB' },
] as const;

/** What an image build says that it needs: toolchain, unpacked packages and the disk made of them. */
const buildSpace = 2 * GiB;

export const spaceCheck: Check = {
  id: 'space',
  title: 'free space',
  neededFor: 'machines and images',
  look: async ({ ctx }) => {
    const { free, path } = await filesystemOf(ctx.paths.home);
    return judgeSpace(free, path);
  },
};

/** What fits into this many free bytes. */
export function judgeSpace(free: number, path: string): Finding {
  const found = `${inGB(free)} at ${path}`;
  const fitting = fits.find(({ from }) => free >= from);
  const roomier = ['zfsdev image prune', 'export ZFSDEV_HOME=/a/roomier/folder'];
  if (!fitting) {
    return {
      status: free < GB ? 'missing' : 'weak',
      found,
      note: 'too little: zfs-test, the smallest, wants 5 GB',
      byHand: roomier,
    };
  }
  return fitting === fits[0]
    ? { status: 'ok', found }
    : { status: 'weak', found, note: `enough for ${fitting.what}` };
}

export const temporarySpaceCheck: Check = {
  id: 'temporary-space',
  title: 'TMPDIR',
  neededFor: 'building images',
  applies: ({ platform }) => platform === 'linux',
  look: async ({ temporary }) => {
    const byHand = ['export TMPDIR=/var/tmp'];
    if (!(await isAllowed(temporary, constants.W_OK | constants.X_OK))) {
      return { status: 'missing', found: `${temporary} can't be written to`, byHand };
    }
    const { free } = await filesystemOf(temporary);
    const found = `${inGB(free)} at ${temporary}`;
    return free >= buildSpace
      ? { status: 'ok', found }
      : { status: 'weak', found, note: `an image build wants ${inGB(buildSpace)} there`, byHand };
  },
};

export const homeCheck: Check = {
  id: 'home',
  title: 'state home',
  neededFor: 'everything zfsdev keeps',
  look: async (host) => {
    const { home } = host.ctx.paths;
    const elsewhere = ['export ZFSDEV_HOME=/var/tmp/zfsdev'];
    const trial = await tryFolder(host);
    if (trial !== 'sparse') {
      return trial === 'dense'
        ? {
            status: 'weak',
            found: home,
            note: 'its filesystem has no sparse files: disks take their full size',
            byHand: elsewhere,
          }
        : { status: 'missing', found: `${home} can't be written to: ${trial.reason}`, byHand: elsewhere };
    }
    const longest = longestName(host.ctx.paths);
    if (longest >= longestAllowed) return { status: 'ok', found: home };
    return {
      status: longest < shortestUseful ? 'missing' : 'weak',
      found: home,
      note:
        longest < shortestUseful
          ? 'its path is too long for the sockets of a machine'
          : `its path is long: names of machines may have ${longest} letters, not ${longestAllowed}`,
      byHand: elsewhere,
    };
  },
};

/** Writes a file with a hole where the state home is, or will be, and looks what it takes. */
async function tryFolder({ ctx }: Host): Promise<'sparse' | 'dense' | { reason: string }> {
  const hole = 8 * MB;
  let folder: string | undefined;
  try {
    const { path } = await filesystemOf(ctx.paths.home);
    folder = await mkdtemp(join(path, '.zfsdev-doctor-'));
    const probe = join(folder, 'probe');
    const file = await open(probe, 'wx', 0o600);
    try {
      await file.truncate(hole);
    } finally {
      await file.close();
    }
    return (await stat(probe)).blocks * 512 < hole / 2 ? 'sparse' : 'dense';
  } catch (error) {
    return { reason: messageOf(error) };
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

/** Letters that a name may have (core/names.ts), and the longest name of a template of ours. */
const longestAllowed = 40;
const shortestUseful = 'kernel-build'.length;

/** ssh appends a random suffix of this length while it makes its control socket. */
const controlSuffix = '.0123456789abcdef';

/** How long a machine's name can be before the path of one of its sockets is too long for the system; 0 if none can. */
export function longestName(paths: Paths): number {
  for (let length = longestAllowed; length > 0; length -= 1) {
    const { qmp, agent, control } = paths.instance(parseName('n'.repeat(length)));
    if ([qmp, agent, control + controlSuffix].every(isSocketPath)) return length;
  }
  return 0;
}

function isSocketPath(path: string): boolean {
  try {
    checkSocketPath(path);
    return true;
  } catch (error) {
    if (error instanceof Failure) return false;
    throw error;
  }
}

/** The sizing guide counts in GB; so does this line. */
function inGB(size: number): string {
  return `${(size / GB).toFixed(size < 100 * GB ? 1 : 0)} GB`;
}
