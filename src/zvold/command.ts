import { spawn } from 'node:child_process';
import { ZvolError } from './errors.ts';

export interface CommandOptions {
  /** Milliseconds after which the program is killed; ZFS itself may then still be at it. */
  readonly deadline: number;
  readonly signal?: AbortSignal | undefined;
  /** Told standard output as it comes, which is not kept then. */
  readonly onOutput?: (text: string) => void;
}

/** How a program ended that could be started, and ended by itself. */
export interface Ended {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program; the tests have one that plays what they tell. */
export type Command = (argv: readonly [string, ...string[]], options: CommandOptions) => Promise<Ended>;

/** What programs say is matched, so it has to be in one language. */
const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/**
 * Runs a program of the machine.
 * @throws ZvolError `DEADLINE_EXCEEDED`, `CANCELLED`, `UNAVAILABLE` if it can't be started
 */
export const runCommand: Command = (argv, { deadline, signal, onOutput }) =>
  new Promise((resolve, reject) => {
    const [program, ...args] = argv;
    const timer = AbortSignal.timeout(deadline);
    const either = signal ? AbortSignal.any([signal, timer]) : timer;
    if (either.aborted) return reject(new ZvolError('CANCELLED', `${program} was not started any more`));
    const child = spawn(program, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    const output = { stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (onOutput) onOutput(text);
      else output.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
    const kill = (): void => void child.kill('SIGKILL');
    either.addEventListener('abort', kill, { once: true });
    child.once('error', (error) => {
      either.removeEventListener('abort', kill);
      reject(new ZvolError('UNAVAILABLE', `${program} can't be started: ${error.message}`, error));
    });
    child.once('close', (exitCode, killedBy) => {
      either.removeEventListener('abort', kill);
      if (exitCode !== null) resolve({ exitCode, ...output });
      else if (signal?.aborted) reject(new ZvolError('CANCELLED', `${program} was ended`));
      else if (timer.aborted)
        reject(
          new ZvolError(
            'DEADLINE_EXCEEDED',
            `${argv.slice(0, 2).join(' ')} did not end in ${deadline / 1000} s`,
          ),
        );
      else reject(new ZvolError('INTERNAL', `${program} was ended by ${String(killedBy)}`));
    });
  });
