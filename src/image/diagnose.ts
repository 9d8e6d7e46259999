import { Failure } from '../core/errors.ts';
import { readIfExists } from '../host/files.ts';
import { lastLines } from '../host/run.ts';

interface Cause {
  readonly words: RegExp;
  readonly message: string;
  readonly hint: string;
}

/** Causes that a build's log tells by its words; the first that matches is shown. */
const causes: readonly Cause[] = [
  {
    words:
      /No space left on device|don't have enough free space|Could not allocate block|not enough free space|Disk quota exceeded/i,
    message: 'the disk is full',
    hint: 'zfsdev image prune, or set TMPDIR to a folder with 2 GiB free, then try again',
  },
  {
    words:
      /newuidmap|newgidmap|no entry in \/etc\/sub[ug]id|unshare.*not permitted|Operation not permitted.*clone/i,
    message: 'this user may not build without root here',
    hint: 'zfsdev doctor shows what is missing; or build as root: sudo zfsdev image build',
  },
  {
    words: /The following signatures (couldn't|were)|NO_PUBKEY|is not signed/i,
    message: "the mirror's signature can't be checked",
    hint: 'sudo apt-get install --only-upgrade debian-archive-keyring, or name another --mirror',
  },
  {
    words:
      /Could not resolve|Failed to fetch|Unable to fetch|Cannot initiate the connection|Connection (refused|timed out)/i,
    message: "the mirror can't be reached",
    hint: 'check the network, or name another mirror: --mirror URL',
  },
  {
    words: /Unable to locate package|has no installation candidate/i,
    message: 'the mirror lacks a package',
    hint: 'name another mirror with --mirror; a suite in motion (sid) may be whole again tomorrow',
  },
  {
    words: /Bad return status for module build|the ZFS module was not compiled/i,
    message: 'the ZFS module does not compile for this kernel',
    hint: 'try --suite trixie; in sid the kernel is at times ahead of OpenZFS',
  },
  {
    words: /the modules for shares were/,
    message: 'the modules for shares do not compile for this kernel',
    hint: 'try --suite trixie, whose kernel changes least',
  },
];

/**
 * Turns the failure of a build's program into one that says the cause, shows the log's tail and where the log is.
 * Interrupts, deadlines and missing programs pass as they are.
 */
export function explainBuild(error: unknown, logFile: string): unknown {
  if (!(error instanceof Failure) || error.reason !== 'process') return error;
  const log = readIfExists(logFile) ?? '';
  const cause = causes.find(({ words }) => words.test(lastLines(log, 400)));
  return new Failure('image', `the image could not be built${cause ? `: ${cause.message}` : ''}`, {
    detail: `${lastLines(log, 15)}\n\nthe whole log: ${logFile}`,
    hint: cause?.hint ?? `read the log: less ${logFile}`,
    data: { ...error.data, log: logFile },
    cause: error,
  });
}
