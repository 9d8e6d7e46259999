import type { ChildProcess } from 'node:child_process';
import { finish, runCommand, start, type Argv, type Command } from './command.ts';

/** Milliseconds after the end of a program before the next one is started: the answer goes out first. */
const pause = 20;

interface Waiting {
  readonly child: ChildProcess;
  /** Has it wait for ever, as it is somebody's now. */
  readonly keep: () => void;
  readonly end: () => void;
}

/**
 * Runs programs, and has the next one of those that read what they are to do started already: it waits with all that it needs
 * open, and answers in a third of the time. Only for some seconds after the last one, so that a daemon with nothing to do keeps
 * nothing of ZFS's open.
 */
export class Standby {
  readonly #waiting = new Map<string, Waiting>();
  readonly #patience: number;
  #ended = false;

  /** @param patience milliseconds after which a program that waits in vain is ended. */
  constructor(patience = 10_000) {
    this.#patience = patience;
  }

  readonly command: Command = Object.assign(
    async (...[argv, options]: Parameters<Command>) => {
      if (options.input === undefined) return runCommand(argv, options);
      const child = options.signal?.aborted ? undefined : this.#take(argv);
      try {
        return await (child ? finish(child, argv, options) : runCommand(argv, options));
      } finally {
        setTimeout(() => this.prepare(argv), pause).unref();
      }
    },
    { prepare: (argv: Argv) => this.prepare(argv) },
  );

  /** Starts a program that is called in a moment, unless one waits already. */
  prepare(argv: Argv): void {
    const key = argv.join('\0');
    if (this.#ended || this.#waiting.has(key)) return;
    const child = start(argv, true);
    const keep = (): void => clearTimeout(timer);
    const forget = (): void => {
      keep();
      if (this.#waiting.get(key)?.child === child) this.#waiting.delete(key);
    };
    const end = (): void => {
      forget();
      child.kill('SIGKILL');
    };
    const timer = setTimeout(end, this.#patience).unref();
    this.#waiting.set(key, { child, keep, end });
    // Whoever takes it hears of its end as well.
    child.once('error', forget);
    child.once('exit', forget);
  }

  /** Ends all that wait, and starts no more. */
  end(): void {
    this.#ended = true;
    for (const { end } of [...this.#waiting.values()]) end();
  }

  #take(argv: Argv): ChildProcess | undefined {
    const key = argv.join('\0');
    const waiting = this.#waiting.get(key);
    this.#waiting.delete(key);
    waiting?.keep();
    return waiting?.child;
  }
}
