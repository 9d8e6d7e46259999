import { execa, type Options } from 'execa';
import { constants } from 'node:os';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { Failure } from '../core/errors.ts';
import { longestTimer } from './deadline.ts';
import { installCommand } from './packages.ts';
import { lastLines, printable, type Attach, type Run, type RunOptions, type Streams } from './run.ts';

type Environment = Readonly<NodeJS.ProcessEnv>;

/** As `Run`, with this environment. */
export async function runProcess(
  env: Environment,
  argv: Parameters<Run>[0],
  options: RunOptions,
): ReturnType<Run> {
  const [program, ...args] = owned(argv, options);
  const child = execa(program, args, execaOptions(env, options));
  if (options.wholeGroup) endGroupWith(child);
  const forwarded = options.onLine && forwardLines(child, options.onLine);
  if (child.pid !== undefined) options.onStart?.(child.pid);
  const result = await child;
  // The last line may have no end.
  await forwarded;
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const [stdout, stderr] = [text(result.stdout), text(result.stderr)];
  const accepted = result.exitCode === 0 || options.accept?.includes(result.exitCode ?? -1);
  if (accepted && result.exitCode !== undefined && !result.timedOut && !result.isCanceled) {
    return { exitCode: result.exitCode, stdout, stderr };
  }
  throw failureOf(argv, options, { ...result, stdout, stderr });
}

/** Its child may hold the output open, so that the end of both would never come. */
function endGroupWith(child: ReturnType<typeof execa>): void {
  const { pid } = child;
  if (pid === undefined) return;
  child.once('exit', () => {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // Nothing is left of it.
    }
  });
}

function owned(
  argv: readonly [string, ...string[]],
  { orphanSignal }: RunOptions,
): readonly [string, ...string[]] {
  if (orphanSignal === undefined || process.platform !== 'linux') return argv;
  return ['setpriv', '--pdeathsig', orphanSignal, ...argv];
}

/** As `Attach`, with this environment. */
export async function attachProcess(
  env: Environment,
  argv: Parameters<Attach>[0],
  { signal, streams }: Parameters<Attach>[1],
): ReturnType<Attach> {
  const [program, ...args] = argv;
  const child = execa(program, args, {
    reject: false,
    extendEnv: false,
    env: { ...env },
    ...(streams ? { stdio: 'pipe', buffer: false } : { stdio: 'inherit' }),
    cancelSignal: signal,
    forceKillAfterDelay: 5_000,
  });
  if (streams) connect(child, streams);
  const result = await child;
  if (result.exitCode !== undefined && !result.isCanceled) return result.exitCode;
  throw failureOf(argv, { effect: 'read', deadline: 0 }, { ...result, stdout: '', stderr: '' });
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
    timeout: Math.min(options.deadline, longestTimer),
    detached: options.detached === true || options.wholeGroup === true,
    ...(options.killSignal === undefined ? {} : { killSignal: options.killSignal }),
    forceKillAfterDelay: 10_000,
    maxBuffer: 64 * 1024 * 1024,
    windowsHide: true,
  };
}

async function forwardLines(child: ReturnType<typeof execa>, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const chunk of child.iterable({ from: 'all', binary: true })) {
      // A carriage return alone goes back to the line's beginning, for what is written next.
      const lines = (rest + decoder.decode(chunk, { stream: true })).split(/\r?\n|\r(?=[^\n])/);
      rest = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    }
    if (rest !== '') onLine(rest.replace(/\r$/, ''));
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
