import { packageOf } from '../host/packages.ts';
import { printable } from '../host/run.ts';
import type { Host } from './host.ts';

export type Argv = readonly [string, ...string[]];

/** Things that packages carry beside programs. */
const furtherPackages: typeof packageOf = {
  'debian-archive-keyring': { apt: 'debian-archive-keyring' },
};

/** The packages that carry these programs here, sorted, each once; programs without a known package are left out. */
export function packagesFor(things: readonly string[], manager: Host['manager']): string[] {
  if (manager === undefined) return [];
  const names = things.map((thing) => (packageOf[thing] ?? furtherPackages[thing])?.[manager]);
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

/** The command that a person types to install packages; undefined if there is nothing to install by a known way. */
export function typedInstall(
  packages: readonly string[],
  host: Pick<Host, 'manager' | 'user'>,
): string | undefined {
  if (packages.length === 0 || host.manager === undefined) return undefined;
  if (host.manager === 'brew') return printable(['brew', 'install', ...packages]);
  return typedAsRoot(['apt-get', 'install', '--no-install-recommends', ...packages], host.user);
}

/** A root's command as this user types it. */
export function typedAsRoot(argv: Argv, user: Host['user']): string {
  return printable(user.uid === 0 ? argv : ['sudo', ...argv]);
}

// Through env rather than this process's own environment, which sudo would drop.
const asNobodyIsThere = ['env', 'DEBIAN_FRONTEND=noninteractive'] as const;

/** Waits for another apt-get or an unattended upgrade to end rather than failing at once. */
const waitForLock = ['-o', 'DPkg::Lock::Timeout=300'] as const;

/** The argv that installs packages without a question; to be run as root. */
export function aptInstall(packages: readonly string[]): Argv {
  return [
    ...asNobodyIsThere,
    'apt-get',
    ...waitForLock,
    'install',
    '-y',
    '--no-install-recommends',
    ...packages,
  ];
}

/** The argv that fetches the lists of packages; to be run as root. */
export function aptUpdate(): Argv {
  return [...asNobodyIsThere, 'apt-get', ...waitForLock, 'update'];
}
