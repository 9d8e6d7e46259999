import { constants } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../core/errors.ts';
import type { Check, Finding } from '../check.ts';
import { findProgram, isAllowed, systemText, type Host, type User } from '../host.ts';
import { notInstalled } from './programs.ts';

// An ordinary user builds an image inside a user namespace; root needs none of this.
const applies = ({ platform, user }: Host): boolean => platform === 'linux' && user.uid !== 0;
const neededFor = 'building images without root';

/** Ids that a Debian tree needs: 0 to 65535. */
const idsNeeded = 65_536;

export const uidmapCheck: Check = {
  id: 'uidmap',
  title: 'newuidmap',
  neededFor,
  mendable: true,
  applies,
  look: async ({ ctx }) => {
    const found = await findProgram(ctx.env, 'newuidmap');
    return found === undefined ? notInstalled(['newuidmap']) : { status: 'ok', found: 'there' };
  },
};

export const subordinateIdsCheck: Check = {
  id: 'subordinate-ids',
  title: 'sub-ids',
  neededFor,
  mendable: true,
  applies,
  look: async ({ root, user }) => {
    const files = ['etc/subuid', 'etc/subgid'] as const;
    const texts = await Promise.all(files.map(async (file) => (await systemText(root, file)) ?? ''));
    const lacking = files.filter((_, i) => !hasRange(texts[i] ?? '', user));
    if (lacking.length === 0) return { status: 'ok', found: `a range of ${user.name}'s own` };
    const range = freeRange(texts.join('\n'));
    const flags = lacking.flatMap((file) => [
      file === 'etc/subuid' ? '--add-subuids' : '--add-subgids',
      range,
    ]);
    return {
      status: 'missing',
      found: `no range for ${user.name} in ${lacking.map((file) => `/${file}`).join(', ')}`,
      commands: [['usermod', ...flags, user.name]],
    };
  },
};

/** True if a text in the form of /etc/subuid gives this user enough ids in one range. */
export function hasRange(text: string, user: User): boolean {
  return ranges(text).some(
    ({ owner, count }) => (owner === user.name || owner === String(user.uid)) && count >= idsNeeded,
  );
}

/** A range behind all that are given out, as usermod takes it. */
export function freeRange(text: string): string {
  const start = Math.max(100_000, ...ranges(text).map(({ first, count }) => first + count));
  return `${start}-${start + idsNeeded - 1}`;
}

function ranges(text: string): { owner: string; first: number; count: number }[] {
  return text.split('\n').flatMap((line) => {
    const match = /^([^:#]+):(\d+):(\d+)\s*$/.exec(line);
    return match ? [{ owner: match[1] ?? '', first: Number(match[2]), count: Number(match[3]) }] : [];
  });
}

export const namespacesCheck: Check = {
  id: 'user-namespaces',
  title: 'namespaces',
  neededFor,
  applies,
  look: async (host) => {
    const { root } = host;
    if (await canUnshare(host)) return { status: 'ok', found: 'allowed' };
    if ((await systemText(root, 'proc/sys/kernel/unprivileged_userns_clone'))?.trim() === '0') {
      return refused('switched off in the kernel', 'kernel.unprivileged_userns_clone=1');
    }
    if ((await systemText(root, 'proc/sys/user/max_user_namespaces'))?.trim() === '0') {
      return refused('switched off in the kernel', 'user.max_user_namespaces=15000');
    }
    if ((await systemText(root, 'proc/sys/kernel/apparmor_restrict_unprivileged_userns'))?.trim() === '1') {
      // Ubuntu lets programs with a profile of their own through; mmdebstrap has one there.
      if (await isAllowed(join(root, 'etc/apparmor.d/mmdebstrap'), constants.R_OK)) {
        return { status: 'ok', found: 'allowed for mmdebstrap by AppArmor' };
      }
      return refused('held back by AppArmor', 'kernel.apparmor_restrict_unprivileged_userns=0');
    }
    return {
      status: 'weak',
      found: 'refused',
      note: 'in a container, its runtime may forbid them; build images as root',
    };
  },
};

function refused(found: string, setting: string): Finding {
  return {
    status: 'weak',
    found,
    note: 'this lasts until the next boot; a line in /etc/sysctl.d/ lasts longer',
    byHand: [`sudo sysctl -w ${setting}`],
  };
}

/** Tries it: what the settings say isn't all that can forbid it. */
async function canUnshare({ ctx }: Host): Promise<boolean> {
  try {
    const { exitCode } = await ctx.run(['unshare', '--user', '--map-root-user', 'true'], {
      effect: 'read',
      deadline: 10_000,
      signal: ctx.signal,
      accept: [1],
    });
    return exitCode === 0;
  } catch (error) {
    // util-linux is everywhere but in the smallest containers; without it the settings must do.
    if (error instanceof Failure && error.reason === 'dependency') return false;
    throw error;
  }
}
