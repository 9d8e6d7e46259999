/** Exit codes of the command line; documented in the README. */
export const ExitCode = {
  done: 0,
  failed: 1,
  usage: 2,
  noSpace: 3,
  state: 4,
  dependency: 5,
  /** `exec` and `run` pass the guest command's code through and use this one for zfsdev's own failures. */
  wrapper: 125,
  deadline: 124,
  interrupted: 130,
} as const;

const exitCodes = {
  /** Bad options, names or sizes. */
  usage: ExitCode.usage,
  /** A template that can't be read or resolved. */
  template: ExitCode.usage,
  /** The worst case doesn't fit the host. */
  'no-space': ExitCode.noSpace,
  'not-found': ExitCode.state,
  'already-exists': ExitCode.state,
  /** The thing is there, but in a state in which this can't be done. */
  'wrong-state': ExitCode.state,
  /** Another process holds the lock. */
  locked: ExitCode.state,
  protected: ExitCode.state,
  /** A driver can't do this; the hint names one that can. */
  unsupported: ExitCode.state,
  /** A program or permission of the host is missing. */
  dependency: ExitCode.dependency,
  deadline: ExitCode.deadline,
  interrupted: ExitCode.interrupted,
  /** A program of the host ran and failed. */
  process: ExitCode.failed,
  /** The machine died, panicked, or its provisioning failed. */
  guest: ExitCode.failed,
  /** A file or folder can't be read or written. */
  files: ExitCode.failed,
  /** An image can't be built or is damaged. */
  image: ExitCode.failed,
} as const;

/** Why an operation failed: a closed union. Anything that isn't a Failure is a bug. */
export type FailureReason = keyof typeof exitCodes;

export interface FailureDetail {
  /** What to do next, ideally a command to type. */
  hint?: string;
  /** Further lines worth showing: the tail of a log, a table. */
  detail?: string;
  /** Facts for `--json`. */
  data?: Readonly<Record<string, unknown>>;
  cause?: unknown;
}

/** An expected failure: what happened, to which thing, and what to type next. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly reason: FailureReason;
  readonly hint: string | undefined;
  readonly detail: string | undefined;
  readonly data: Readonly<Record<string, unknown>>;

  constructor(reason: FailureReason, message: string, detail: FailureDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.reason = reason;
    this.hint = detail.hint;
    this.detail = detail.detail;
    this.data = detail.data ?? {};
  }

  get exitCode(): number {
    return exitCodes[this.reason];
  }
}

/** The exit code of `exec` and `run` for a failure that isn't the guest's command's: as env(1) and timeout(1) have it. */
export function wrapperCode(error: unknown): number {
  return error instanceof Failure && error.reason === 'deadline' ? ExitCode.deadline : ExitCode.wrapper;
}

/** True for an error of Node's file and network calls with this code (`ENOENT`, `ENOSPC` ...). */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

/** The words of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
