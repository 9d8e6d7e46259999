import { spawn, type ChildProcess } from 'node:child_process';
import { ZvolError } from './errors.ts';

export interface CommandOptions {
  /** Milliseconds after which the program is killed; ZFS itself may then still be at it. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
  /** Told standard output as it comes, which is not kept then. */
  readonly onOutput?: (text: string) => void;
  /** What the program reads; nothing without. */
  readonly input?: string | undefined;
}

/** How a program ended that could be started, and ended by itself. */
export interface Ended {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export type Argv = readonly [string, ...string[]];

/** Runs a program; the tests have one that plays what they tell. */
export interface Command {
  (argv: Argv, options: CommandOptions): Promise<Ended>;
  /** Says that this program will be called in a moment, with input: where it can, it is started already. */
  readonly prepare?: (argv: Argv) => void;
}

/** What programs say is matched, so it has to be in one language. */
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/** Milliseconds in which a program that was killed ends, unless it waits for a disk, which no signal reaches. */
const killGrace = 2_000;

/** Starts a program of the machine, that waits for its input if it `reads` any. */
export function start([program, ...args]: Argv, reads: boolean): ChildProcess {
  return spawn(program, args, { env: environment, stdio: [reads ? 'pipe' : 'ignore', 'pipe', 'pipe'] });
}

/**
 * Runs a program of the machine.
 * @throws ZvolError `DEADLINE_EXCEEDED`, `CANCELLED`, `UNAVAILABLE` if it can't be started or somebody else killed it
 */
export const runCommand: Command = async (argv, options) => {
  if (options.signal?.aborted) throw new ZvolError('CANCELLED', `${argv[0]} was not started any more`);
  return finish(start(argv, options.input !== undefined), argv, options);
};

/** Gives a program that was just started, or waits for it, its input; and waits for its end. @throws ZvolError as `runCommand` */
export function finish(
  child: ChildProcess,
  argv: Argv,
  { deadline, signal, onOutput, input }: CommandOptions,
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const timer = AbortSignal.timeout(deadline);
    const either = signal ? AbortSignal.any([signal, timer]) : timer;
    const output = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (onOutput) onOutput(text);
      else output.stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
    // One that ends before it has read all of it says itself why.
    child.stdin?.on('error', () => undefined).end(input);
    let hopeless: NodeJS.Timeout | undefined;
    const killed = (by: NodeJS.Signals | undefined): ZvolError => {
      const what = argv.slice(0, 2).join(' ');
      if (signal?.aborted) return new ZvolError('CANCELLED', `${what} was ended`);
      return timer.aborted
        ? new ZvolError('DEADLINE_EXCEEDED', `${what} did not end in ${deadline / 1000} s, and was killed`)
        : new ZvolError('UNAVAILABLE', `${what} was killed by ${by ?? 'somebody'}`);
    };
    const kill = (): void => {
      child.kill('SIGKILL');
      hopeless = setTimeout(() => reject(killed(undefined)), killGrace);
    };
    const settled = (): void => {
      clearTimeout(hopeless);
      either.removeEventListener('abort', kill);
    };
    either.addEventListener('abort', kill, { once: true });
    child.once('error', (error) => {
      settled();
      reject(new ZvolError('UNAVAILABLE', `${argv[0]} can't be started: ${error.message}`, error));
    });
    child.once('close', (exitCode, by) => {
      settled();
      if (exitCode === null) reject(killed(by ?? undefined));
      else resolve({ exitCode, ...output });
    });
  });
}
