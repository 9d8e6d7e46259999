import { ZvolError, wordsOf } from './errors.ts';
import type { PoolWatch } from './pool-watch.ts';

/** What tidies up after a run that ended in the middle, and says what it did as it does it. */
export interface Recoverable {
  recover(tell: (words: string) => void): Promise<void>;
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
    const failures: unknown[] = [];
    // What one of them meets is no reason for the others not to.
    for (const each of this.#all)
      await each.recover(this.#report).catch((error: unknown) => failures.push(error));
    if (failures.length === 0) return;
    const away = !(await this.#watch.look().catch(() => false));
    // Its return is told.
    if (away) return;
    if (attempt < tries && failures.some(isPassing)) {
      this.#timer = setTimeout(() => this.#next(attempt + 1), firstPause * 2 ** (attempt - 1)).unref();
      return;
    }
    for (const error of failures)
      this.#report(`what an earlier run left could not be tidied up: ${wordsOf(error)}`);
  }
}

const isPassing = (error: unknown): boolean =>
  error instanceof ZvolError && (error.code === 'UNAVAILABLE' || error.code === 'DEADLINE_EXCEEDED');
