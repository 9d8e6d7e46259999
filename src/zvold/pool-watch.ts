import { ZvolError } from './errors.ts';
import type { Machine } from './machine.ts';

/** Milliseconds between looks while somebody wants to hear of changes. */
const attentive = 1_000;
/** And at most otherwise: a look is one read of a file that the kernel makes up. */
const patient = 30_000;

/**
 * Knows whether a pool can be asked. The kernel tells nobody when that changes, so it is looked at: by every request, each
 * second while somebody watches or recovery waits for it, and twice a minute else.
 */
export class PoolWatch {
  readonly #machine: Machine;
  readonly #pool: string;
  readonly #listeners = new Set<(usable: boolean) => void>();
  #usable: boolean | undefined;
  #watchers = 0;
  #timer: NodeJS.Timeout | undefined;
  #pause = attentive;

  constructor(machine: Machine, pool: string) {
    this.#machine = machine;
    this.#pool = pool;
  }

  /** @throws ZvolError `UNAVAILABLE` if the pool can't be asked: on one that is suspended, `zfs` itself would hang */
  async require(): Promise<void> {
    const state = await this.#machine.poolState(this.#pool);
    this.#saw(isUsable(state));
    if (state === undefined) throw new ZvolError('UNAVAILABLE', `the pool ${this.#pool} is not imported`);
    if (!isUsable(state))
      throw new ZvolError(
        'UNAVAILABLE',
        `the pool ${this.#pool} is ${state}: zpool status ${this.#pool} tells why`,
      );
  }

  /** Whether it can be asked now. */
  async look(): Promise<boolean> {
    const usable = isUsable(await this.#machine.poolState(this.#pool));
    this.#saw(usable);
    return usable;
  }

  /** Whether it can be asked: at once, and whenever that changes, until the signal. */
  async *changes(signal: AbortSignal): AsyncGenerator<boolean> {
    const queue: boolean[] = [];
    let wake: () => void = () => undefined;
    const stop = this.listen((usable) => {
      queue.push(usable);
      wake();
    });
    const end = (): void => wake();
    signal.addEventListener('abort', end, { once: true });
    this.#watchers += 1;
    try {
      let last = await this.look();
      queue.length = 0;
      yield last;
      this.#again();
      while (!signal.aborted) {
        const next = queue.shift();
        if (next === undefined) await new Promise<void>((resolve) => (wake = resolve));
        else if (next !== last) yield (last = next);
      }
    } finally {
      this.#watchers -= 1;
      signal.removeEventListener('abort', end);
      stop();
    }
  }

  /** Calls back when it becomes usable, or ceases to be. @returns what ends that */
  listen(listener: (usable: boolean) => void): () => void {
    this.#listeners.add(listener);
    this.#again();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.close();
    };
  }

  /** Looks no more of its own accord. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #saw(usable: boolean): void {
    const changed = this.#usable !== undefined && this.#usable !== usable;
    this.#usable = usable;
    if (!changed) return;
    this.#pause = attentive;
    for (const listener of this.#listeners) listener(usable);
  }

  /** The longer nothing changes, the less often it looks, unless somebody watches. */
  #again(): void {
    clearTimeout(this.#timer);
    const wait = this.#watchers > 0 ? attentive : this.#pause;
    this.#timer = setTimeout(() => {
      this.#pause = Math.min(this.#pause * 2, patient);
      void this.look()
        .catch(() => undefined)
        .then(() => {
          if (this.#listeners.size > 0) this.#again();
        });
    }, wait).unref();
  }
}

/** What ZFS calls a pool that answers. */
function isUsable(state: string | undefined): boolean {
  return state === 'ONLINE' || state === 'DEGRADED';
}
