/**
 * What stands for a thing among locks. One who wants several takes them by one call of `holding`, which takes them in the order
 * of these words, and takes no more while it has them: so nobody ever waits for somebody who waits for them.
 */
export const lockOf = {
  pool: '0 pool',
  /** Ids that callers bring along are looked up before they are given. */
  ids: '1 ids',
  /** So are names and ids of templates. */
  templates: '2 templates',
  volume: (name: string): string => `4 volume ${name}`,
} as const;

/** Lets one at a time do something to a thing; those who wait come in the order in which they asked. */
export class Locks {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Does `work` while nobody else has any of these things. */
  async holding<T>(things: readonly string[], work: () => Promise<T>): Promise<T> {
    // Always in one order, so that two who want the same two never wait for each other.
    const [first, ...rest] = [...new Set(things)].sort();
    if (first === undefined) return work();
    const before = this.#last.get(first) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(() => this.holding(rest, work));
    const settled = mine.catch(() => undefined);
    this.#last.set(first, settled);
    try {
      return await mine;
    } finally {
      if (this.#last.get(first) === settled) this.#last.delete(first);
    }
  }
}
