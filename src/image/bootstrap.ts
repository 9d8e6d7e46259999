import type { Context } from '../host/context.ts';
import { endedOutright } from '../host/run.ts';
import type { Suite } from './recipe.ts';
import { isRoot } from './workplace.ts';

/** Debian's own keys, with which all packages are checked. */
export const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The module's compilation alone takes 3 min on 2 cores; a slow machine and a slow mirror get their chance. */
const deadline = 60 * 60_000;

/** What never reaches a disk: dpkg leaves it out while it unpacks, in the guest's own later installations too. */
const leftOut = ['man', 'info', 'locale', 'lintian', 'bug', 'doc'].map((name) => `/usr/share/${name}/*`);

/**
 * As root, mmdebstrap would mount below the host's own tree, and what it started would outlive it. In namespaces of
 * its own everything ends with it, and removing the working folder can't reach through a mount. Without root it makes
 * such namespaces itself.
 */
export const contained = [
  'unshare',
  '--mount',
  '--pid',
  '--fork',
  '--kill-child=KILL',
  '--mount-proc',
  '--',
] as const;

/** What is put together from Debian's packages. */
export interface Bootstrap {
  readonly suite: Suite;
  readonly architecture: string;
  readonly components: readonly string[];
  readonly packages: readonly string[];
  /** mmdebstrap's own choice if undefined. */
  readonly mirror: string | undefined;
  /** The file that gets it; `/dev/null` where a hook takes what is wanted. */
  readonly target: string;
}

export interface BootstrapOptions {
  /** Further options of mmdebstrap's. */
  readonly words?: readonly string[];
  /** A folder for what it makes on the way, that the namespace's users may enter. */
  readonly temporary: string;
  readonly logFile: string;
  readonly progress: (text: string) => void;
}

/** Runs mmdebstrap. @throws Failure `process`, `deadline`, `interrupted` */
export async function mmdebstrap(
  ctx: Context,
  { suite, architecture, components, packages, mirror, target }: Bootstrap,
  { words = [], temporary, logFile, progress }: BootstrapOptions,
): Promise<void> {
  await ctx.run(
    [
      ...(isRoot() ? contained : ([] as const)),
      'mmdebstrap',
      `--mode=${isRoot() ? 'root' : 'unshare'}`,
      '--variant=minbase',
      `--architectures=${architecture}`,
      `--components=${components.join(',')}`,
      `--include=${packages.join(',')}`,
      `--keyring=${keyring}`,
      '--aptopt=APT::Install-Recommends "false"',
      ...leftOut.map((path) => `--dpkgopt=path-exclude=${path}`),
      ...words,
      suite,
      target,
      ...(mirror === undefined ? [] : [mirror]),
    ],
    {
      effect: 'write',
      deadline,
      signal: ctx.signal,
      // What a killed build leaves on disk is swept by the next one.
      ...(isRoot() ? endedOutright : { orphanSignal: 'TERM' }),
      // A folder that every user may enter: / is one, this process's own may not be.
      cwd: '/',
      env: { TMPDIR: temporary, DEBIAN_FRONTEND: 'noninteractive' },
      logFile,
      onLine: (line) => {
        const said = /^I: (.+?)\.*$/.exec(line)?.[1];
        if (said) progress(said);
      },
    },
  );
}
