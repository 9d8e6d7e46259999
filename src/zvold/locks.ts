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
