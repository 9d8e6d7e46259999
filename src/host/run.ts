import { execa, type Options } from 'execa';
import { constants } from 'node:os';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { Failure } from '../core/errors.ts';
import { installCommand } from './packages.ts';

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
  /** Called with each line of standard error and standard output as it comes. */
  readonly onLine?: (line: string) => void;
  /** In a session of its own, where the terminal's Ctrl-C does not reach it. */
  readonly detached?: boolean;
  /**
   * What the kernel sends it should zfsdev itself be killed outright, where the system can: without, a process that writes
   * for minutes would go on with nobody left who wants it.
   */
  readonly orphanSignal?: 'KILL' | 'TERM';
  /** Appends all output to this file as well (a build log). */
  readonly logFile?: string;
}

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

/** Makes the runner; `verbose` is told each command before it runs. */
export function createRun(config: {
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly dryRun: boolean;
  readonly verbose?: (command: string) => void;
}): Run {
  return async (argv, options) => {
    if (config.dryRun && options.effect === 'write') {
      throw new Error(`a writing command was called under --dry-run: ${printable(argv)}`);
    }
    config.verbose?.(printable(argv));
    const [program, ...args] = owned(argv, options);
    const child = execa(program, args, execaOptions(config.env, options));
    if (options.onLine) void forwardLines(child, options.onLine);
    const result = await child;
    const text = (value: unknown): string => (typeof value === 'string' ? value : '');
    const [stdout, stderr] = [text(result.stdout), text(result.stderr)];
    const accepted = result.exitCode === 0 || options.accept?.includes(result.exitCode ?? -1);
    if (accepted && result.exitCode !== undefined && !result.timedOut && !result.isCanceled) {
      return { exitCode: result.exitCode, stdout, stderr };
    }
    throw failureOf(argv, options, { ...result, stdout, stderr });
  };
}

function owned(
  argv: readonly [string, ...string[]],
  { orphanSignal }: RunOptions,
): readonly [string, ...string[]] {
  if (orphanSignal === undefined || process.platform !== 'linux') return argv;
  return ['setpriv', '--pdeathsig', orphanSignal, ...argv];
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

/** Makes the runner for programs that talk to the user themselves; it has no deadline, the user is the owner. */
export function createAttach(config: {
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly verbose?: (command: string) => void;
}): Attach {
  return async (argv, { signal, streams }) => {
    config.verbose?.(printable(argv));
    const [program, ...args] = argv;
    const child = execa(program, args, {
      reject: false,
      extendEnv: false,
      env: { ...config.env },
      ...(streams ? { stdio: 'pipe', buffer: false } : { stdio: 'inherit' }),
      cancelSignal: signal,
      forceKillAfterDelay: 5_000,
    });
    if (streams) connect(child, streams);
    const result = await child;
    if (result.exitCode !== undefined && !result.isCanceled) return result.exitCode;
    throw failureOf(argv, { effect: 'read', deadline: 0 }, { ...result, stdout: '', stderr: '' });
  };
}

/**
 * Runs a command of the user's own on this process's standard input, output and error, in the folder and environment it was typed
 * in, until it ends by itself: signals that reach this process are handed on to it. Gives its exit code, 128 + n if a signal
 * ended it, as a shell has it.
 * @param output where its standard output goes.
 * @throws Failure `dependency` if there is no such program, `process` if it can't be started.
 */
export async function runForUser(
  argv: readonly [string, ...string[]],
  { output }: { readonly output: 'stdout' | 'stderr' },
): Promise<number> {
  const [program, ...args] = argv;
  const child = execa(program, args, {
    reject: false,
    stdin: 'inherit',
    stdout: output === 'stdout' ? 'inherit' : process.stderr,
    stderr: 'inherit',
    buffer: false,
  });
  const passOn = (signal: NodeJS.Signals): void => {
    // What is typed at a terminal reaches all who sit at it.
    if (signal === 'SIGINT' && process.stdin.isTTY) return;
    child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'] as const;
  for (const signal of signals) process.on(signal, passOn);
  try {
    const result = await child;
    if (result.exitCode !== undefined) return result.exitCode;
    if (result.signal !== undefined) return 128 + constants.signals[result.signal];
    if (result.code === 'ENOENT') {
      throw new Failure('dependency', `there is no command ${program}`, {
        hint: 'check its spelling, PATH, and (of a script) its first line',
      });
    }
    throw new Failure(
      'process',
      `${program} can't be started: ${result.originalMessage ?? 'no cause is known'}`,
      {
        hint: `chmod +x, if it is a program of yours`,
      },
    );
  } finally {
    for (const signal of signals) process.off(signal, passOn);
  }
}

function connect(
  child: {
    readonly stdin: Writable | null;
    readonly stdout: Readable | null;
    readonly stderr: Readable | null;
  },
  streams: Streams,
): void {
  // A program may end without reading all of its input.
  child.stdin?.on('error', () => undefined);
  if (child.stdin) streams.stdin.pipe(child.stdin);
  child.stdout?.pipe(streams.stdout, { end: false });
  child.stderr?.pipe(streams.stderr, { end: false });
}

/** A program whose standard input and output the caller feeds and reads itself. */
export interface StreamingProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Settles at the program's end, with the failures of `Run`. */
  readonly ended: Promise<void>;
}

/** Starts one program between two streams of the caller; nothing of its output is kept but its last words. */
export function startStreaming(
  env: Readonly<NodeJS.ProcessEnv>,
  argv: readonly [string, ...string[]],
  options: Pick<RunOptions, 'effect' | 'deadline' | 'signal' | 'accept'>,
): StreamingProcess {
  const [program, ...args] = argv;
  const child = execa(program, args, {
    ...execaOptions(env, options),
    stdin: 'pipe',
    buffer: { stdout: false, stderr: true },
  });
  const { stdin, stdout } = child;
  if (!stdin || !stdout) throw new Error('a process without the pipes that were asked for');
  // A closed pipe is the program's end seen from here; `ended` tells why.
  stdin.on('error', () => undefined);
  stdout.on('error', () => undefined);
  // Node throws away what an ended process wrote and nobody has read yet; a stream of our own keeps it.
  const output = stdout.pipe(new PassThrough());
  output.once('close', () => stdout.destroy());
  const ended = child.then((result) => {
    const accepted = result.exitCode === 0 || options.accept?.includes(result.exitCode ?? -1);
    if (accepted && !result.timedOut && !result.isCanceled) return;
    const stderr = typeof result.stderr === 'string' ? result.stderr : '';
    throw failureOf(argv, options, { ...result, stdout: '', stderr });
  });
  ended.catch(() => undefined);
  return { stdin, stdout: output, ended };
}

function execaOptions(env: Readonly<NodeJS.ProcessEnv>, options: RunOptions): Options {
  return {
    reject: false,
    extendEnv: false,
    // LC_ALL: messages are matched and shown; a translation would break the one and surprise in the other.
    env: { ...env, ...options.env, LC_ALL: 'C.UTF-8' },
    // Both streams in one, as they come, for `onLine`.
    all: options.onLine !== undefined,
    stdin: options.input === undefined ? 'ignore' : 'pipe',
    ...(options.input === undefined ? {} : { input: options.input }),
    ...(options.logFile === undefined
      ? {}
      : {
          stdout: ['pipe', { file: options.logFile, append: true }],
          stderr: ['pipe', { file: options.logFile, append: true }],
        }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    timeout: options.deadline,
    detached: options.detached === true,
    ...(options.killSignal === undefined ? {} : { killSignal: options.killSignal }),
    forceKillAfterDelay: 10_000,
    maxBuffer: 64 * 1024 * 1024,
    windowsHide: true,
  };
}

async function forwardLines(child: ReturnType<typeof execa>, onLine: (line: string) => void): Promise<void> {
  try {
    for await (const line of child.iterable({ from: 'all' })) onLine(String(line));
  } catch {
    // The failure itself is reported by the awaited child.
  }
}

interface Outcome extends RunResultLike {
  readonly stdout: string;
  readonly stderr: string;
}

interface RunResultLike {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly timedOut?: boolean;
  readonly isCanceled?: boolean;
  readonly code?: string | undefined;
  readonly message?: string | undefined;
}

function failureOf(argv: readonly [string, ...string[]], options: RunOptions, outcome: Outcome): Failure {
  const [program] = argv;
  const words = lastLines(outcome.stderr || outcome.stdout, 15);
  const detail = words ? { detail: words } : {};
  const data = {
    command: printable(argv),
    exitCode: outcome.exitCode ?? null,
    signal: outcome.signal ?? null,
  };
  if (outcome.isCanceled) return new Failure('interrupted', `${program} was interrupted`, { data });
  if (outcome.timedOut) {
    return new Failure('deadline', `${program} did not end within ${options.deadline / 1000} s`, {
      ...detail,
      data,
    });
  }
  if (outcome.code === 'ENOENT' || outcome.stderr.startsWith('setpriv: failed to execute')) {
    const install = installCommand(program);
    return new Failure('dependency', `${program} is not installed, or not on PATH`, {
      hint: install ? `${install}\n(or: zfsdev doctor --fix)` : 'zfsdev doctor shows what is missing',
      data,
    });
  }
  if (outcome.exitCode !== undefined) {
    return new Failure('process', `${program} failed with exit code ${outcome.exitCode}`, {
      ...detail,
      data,
    });
  }
  if (outcome.signal !== undefined) {
    return new Failure('process', `${program} was killed by ${outcome.signal}`, { ...detail, data });
  }
  return new Failure('process', `${program} could not be run: ${outcome.message ?? 'unknown cause'}`, {
    data,
  });
}

/** The last lines of a text, without trailing white space. */
export function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}
