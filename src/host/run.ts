import type { Readable, Writable } from 'node:stream';

export interface RunOptions {
  /** `read` calls change nothing; a `write` call under --dry-run is a bug and throws. */
  readonly effect: 'read' | 'write';
  /** Milliseconds after which the process is ended. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
  /** What ends the process at the deadline or when the signal is aborted; SIGTERM (and SIGKILL 10 s later) unless told. */
  readonly killSignal?: 'SIGTERM' | 'SIGKILL';
  readonly cwd?: string;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
  /** Exit codes that are answers rather than failures; 0 always is. */
  readonly accept?: readonly number[];
  /** Called with each line of standard error and standard output as it comes; a progress line that is written over counts as one. */
  readonly onLine?: (line: string) => void;
  /** Called with the pid of the process once it runs. */
  readonly onStart?: (pid: number) => void;
  /** In a session of its own, where the terminal's Ctrl-C does not reach it. */
  readonly detached?: boolean;
  /**
   * What the kernel sends it should zfsdev itself be killed outright, where the system can: without, a process that writes
   * for minutes would go on with nobody left who wants it.
   */
  readonly orphanSignal?: 'KILL' | 'TERM';
  /**
   * In a process group of its own, of which nothing outlives it. Killing `unshare` alone just as it starts its child leaves a
   * child that nobody would ever end (11 of 400 times).
   */
  readonly wholeGroup?: boolean;
  /** Appends all output to this file as well (a build log). */
  readonly logFile?: string;
}

/** For what has nothing to tidy up, and of which all must be gone at once. */
export const endedOutright = { killSignal: 'SIGKILL', orphanSignal: 'KILL', wholeGroup: true } as const;

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs one program with an argv array, never through a shell, and waits for its end.
 * @throws Failure `dependency` if the program isn't there, `deadline` if it took too long, `interrupted` if the signal
 *   was aborted, `process` if it was killed or exited with a code that isn't accepted; its last words are the detail.
 */
export type Run = (argv: readonly [string, ...string[]], options: RunOptions) => Promise<RunResult>;

/** A command as it can be pasted into a POSIX shell. */
export function printable(argv: readonly string[]): string {
  return argv
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`))
    .join(' ');
}

/** What an attached program reads and writes. */
export interface Streams {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/**
 * Runs one program on this process's own standard input, output and error, or on other `streams`, which stay open; gives
 * its exit code (128 + n if killed).
 */
export type Attach = (
  argv: readonly [string, ...string[]],
  options: { readonly signal: AbortSignal; readonly streams?: Streams | undefined },
) => Promise<number>;

/** The last lines of a text, without trailing white space. */
export function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}

/** How a runner is set up; `verbose` is told each command before it runs. */
export interface RunnerConfig {
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly verbose?: (command: string) => void;
}

// What starts processes is read only when the first one is: many commands need none.

/** Makes the runner. */
export function createRun(config: RunnerConfig & { readonly dryRun: boolean }): Run {
  return async (argv, options) => {
    if (config.dryRun && options.effect === 'write') {
      throw new Error(`a writing command was called under --dry-run: ${printable(argv)}`);
    }
    config.verbose?.(printable(argv));
    const { runProcess } = await import('./process.ts');
    return runProcess(config.env, argv, options);
  };
}

/** Makes the runner for programs that talk to the user themselves; it has no deadline, the user is the owner. */
export function createAttach(config: RunnerConfig): Attach {
  return async (argv, options) => {
    config.verbose?.(printable(argv));
    const { attachProcess } = await import('./process.ts');
    return attachProcess(config.env, argv, options);
  };
}
