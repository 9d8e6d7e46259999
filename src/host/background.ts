import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { messageOf } from '../core/errors.ts';

/** A program that goes on when this process ends. */
export interface BackgroundProcess {
  /** True once it has ended, or could not be started. */
  hasEnded(): boolean;
  /** Why it has ended. */
  reason(): string;
  /** Ends it, and waits until it is gone. */
  end(): Promise<void>;
}

/**
 * Starts a program in a session of its own, with all its output in a new file of mode 0600. Its end is another's to bring
 * about: nothing waits for it here.
 */
export function startInBackground(
  env: Readonly<NodeJS.ProcessEnv>,
  [program, ...args]: readonly [string, ...string[]],
  log: string,
): BackgroundProcess {
  const output = openSync(log, 'wx', 0o600);
  let ending: string | undefined;
  const child = spawn(program, args, {
    detached: true,
    env: { ...env, LC_ALL: 'C.UTF-8' },
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  child.unref();
  const ended = new Promise<void>((done) => {
    child.once('error', (error) => {
      ending = messageOf(error);
      done();
    });
    child.once('exit', (code, signal) => {
      ending = signal === null ? `it ended with exit code ${code}` : `it was ended by ${signal}`;
      done();
    });
  });
  return {
    hasEnded: () => ending !== undefined,
    reason: () => ending ?? 'it runs',
    end: async () => {
      if (ending !== undefined) return;
      child.ref();
      child.kill('SIGKILL');
      await ended;
    },
  };
}
