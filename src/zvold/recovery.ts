import { ZvolError, wordsOf } from './errors.ts';
import type { PoolWatch } from './pool-watch.ts';

/** What tidies up after a run that ended in the middle, and says what it did. */
export interface Recoverable {
  recover(): Promise<readonly string[]>;
}

/** Milliseconds until the next try, and how often, where the pool is there and could not be asked all the same. */
const firstPause = 2_000;
const tries = 6;

/** Tidies up at the start, and whenever the pool comes back: what went away with it in the middle of something is there again. */
export class Recovery {
  readonly #all: readonly Recoverable[];
  readonly #watch: PoolWatch;
  readonly #report: (words: string) => void;
  #running: Promise<void> = Promise.resolve();
  #stop: () => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(all: readonly Recoverable[], watch: PoolWatch, report: (words: string) => void) {
    this.#all = all;
    this.#watch = watch;
    this.#report = report;
  }

  begin(): void {
    this.#stop = this.#watch.listen((usable) => {
      if (usable) this.#next(1);
    });
    this.#next(1);
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#stop();
  }

  /** One after the other: the pool may come and go meanwhile. @returns when all that was begun has ended */
  settled(): Promise<void> {
    return this.#running;
  }

  #next(attempt: number): void {
    clearTimeout(this.#timer);
    this.#running = this.#running.then(() => this.#once(attempt));
  }

  async #once(attempt: number): Promise<void> {
    try {
      for (const each of this.#all) for (const line of await each.recover()) this.#report(line);
    } catch (error) {
      const away = !(await this.#watch.look().catch(() => false));
      // Its return is told.
      if (away) return;
      const passing =
        error instanceof ZvolError && (error.code === 'UNAVAILABLE' || error.code === 'DEADLINE_EXCEEDED');
      if (!passing || attempt >= tries)
        return this.#report(`what an earlier run left could not be tidied up: ${wordsOf(error)}`);
      this.#timer = setTimeout(() => this.#next(attempt + 1), firstPause * 2 ** (attempt - 1)).unref();
    }
  }
}
