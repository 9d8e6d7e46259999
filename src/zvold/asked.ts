/** What is asked for and has not begun: whoever asked for it may call it off by its id, though nothing of that id is known yet. */
export class Asked {
  readonly #all = new Map<string, AbortController>();

  /**
   * Does what may be called off.
   * @param id as the caller gave it; empty: nobody can name it. @param gone aborted when the caller goes away
   * @param work is handed what is aborted by either
   */
  async during<T>(
    id: string,
    gone: AbortSignal | undefined,
    work: (off: AbortSignal) => Promise<T>,
  ): Promise<T> {
    // The same asked for twice is one thing.
    const asked = this.#all.get(id) ?? new AbortController();
    if (id !== '') this.#all.set(id, asked);
    try {
      return await work(gone ? AbortSignal.any([gone, asked.signal]) : asked.signal);
    } finally {
      if (this.#all.get(id) === asked) this.#all.delete(id);
    }
  }

  /** @returns false if nothing of this id is asked for */
  callOff(id: string): boolean {
    this.#all.get(id)?.abort();
    // Whoever asks for the same behind this means it.
    return this.#all.delete(id);
  }
}
