import type { ImportJob } from './jobs.ts';
import type { Template, Volume } from './model.ts';

/** One thing that is there, has changed, or is gone. */
export type Change =
  | { readonly kind: 'volume'; readonly volume: Volume }
  | { readonly kind: 'volume-deleted'; readonly id: string }
  | { readonly kind: 'template'; readonly template: Template }
  | { readonly kind: 'template-deleted'; readonly id: string }
  | { readonly kind: 'import'; readonly job: ImportJob };

/** What a watcher is told. */
export type Told = (Change | { readonly kind: 'synced' | 'resync' }) & { readonly time: number };

/** Changes that wait for a watcher; one that is slower than this is told to begin anew. */
const longestQueue = 1000;

/** Passes changes on to all watchers, each in the order in which they happened. */
export class Hub {
  readonly #watchers = new Set<Watcher>();

  /** Whether there is anybody to be told: what nobody hears of need not be asked for. */
  get isWatched(): boolean {
    return this.#watchers.size > 0;
  }

  tell(change: Change): void {
    for (const watcher of this.#watchers) watcher.add({ ...change, time: Date.now() });
  }

  /**
   * First all that is there, then every change, until the signal ends it.
   * @param survey what is there; asked `again` whenever a watcher was too slow, who may not have heard of any end.
   */
  async *watch(
    survey: (again: boolean) => Promise<readonly Change[]>,
    signal: AbortSignal,
  ): AsyncGenerator<Told> {
    const watcher = new Watcher(signal);
    this.#watchers.add(watcher);
    try {
      for (let again = false; !signal.aborted; again = true) {
        watcher.clear();
        if (again) yield { kind: 'resync', time: Date.now() };
        for (const change of await survey(again)) yield { ...change, time: Date.now() };
        yield { kind: 'synced', time: Date.now() };
        for (let next = await watcher.next(); next !== undefined; next = await watcher.next()) yield next;
      }
    } finally {
      this.#watchers.delete(watcher);
    }
  }
}

class Watcher {
  readonly #queue: Told[] = [];
  readonly #signal: AbortSignal;
  #lost = false;
  #wake: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
  }

  add(told: Told): void {
    if (this.#queue.length >= longestQueue) this.#lost = true;
    else if (!this.#lost) this.#queue.push(told);
    this.#wake?.();
  }

  clear(): void {
    this.#queue.length = 0;
    this.#lost = false;
  }

  /** Undefined if it has to begin anew, or if nobody watches any more. */
  async next(): Promise<Told | undefined> {
    while (!this.#signal.aborted) {
      const told = this.#queue.shift();
      if (told) return told;
      if (this.#lost) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
    return undefined;
  }
}
