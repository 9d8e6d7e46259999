import type { Host } from './host.ts';
import type { Argv } from './packages.ts';

/** `missing`: zfsdev can't do its work; `weak`: it can, but slower, or not all of it. */
export type Status = 'ok' | 'weak' | 'missing';

/** What a look at the host found. */
export interface Finding {
  readonly status: Status;
  /** A version or a state, in a few words. */
  readonly found: string;
  /** Why it is so, where that isn't plain. */
  readonly note?: string;
  /** Programs (or `debian-archive-keyring`) whose packages mend it. */
  readonly install?: readonly string[];
  /** Root's commands that mend it and may be run with everyone's consent by `--fix`. */
  readonly commands?: readonly Argv[];
  /** What a person types to mend it, beyond what `--fix` does. */
  readonly byHand?: readonly string[];
}

/** One thing to look at. */
export interface Check {
  /** Stable; scripts may rely on it. */
  readonly id: string;
  readonly title: string;
  /** What it is needed for. */
  readonly neededFor: string;
  /** True if it matters on this host at all. */
  readonly applies?: (host: Host) => boolean;
  /** True where zfsdev works without it: `missing` becomes `weak`. */
  readonly optional?: (host: Host) => boolean;
  /** True for the checks whose outcome `--fix` can change. */
  readonly mendable?: boolean;
  readonly look: (host: Host) => Promise<Finding>;
}

/** The outcome of one check; its form is what `doctor --json` prints, apart from `finding`. */
export interface CheckResult {
  readonly id: string;
  readonly title: string;
  readonly status: Status;
  readonly found: string;
  readonly note?: string;
  readonly neededFor: string;
  readonly optional: boolean;
  /** The commands to type, in this order. */
  readonly fix?: readonly string[];
  /** For `--fix`, not for people. */
  readonly finding: Finding;
}
