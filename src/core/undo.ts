/**
 * Undo steps, registered one by one as work goes on: a failure or an interrupt unwinds them in reverse order,
 * success disarms them. An undo step that fails does not keep the earlier ones from running.
 */
export class UndoStack {
  readonly #steps: { readonly what: string; readonly undo: () => Promise<void> | void }[] = [];

  add(what: string, undo: () => Promise<void> | void): void {
    this.#steps.push({ what, undo });
  }

  /** Forgets all steps: what was done stays. */
  disarm(): void {
    this.#steps.length = 0;
  }

  /** Runs all steps, last first; returns those that failed. */
  async unwind(): Promise<{ what: string; error: unknown }[]> {
    const failed: { what: string; error: unknown }[] = [];
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        failed.push({ what: step.what, error });
      }
    }
    return failed;
  }
}

/** Runs `work` with an undo stack that unwinds if it throws. */
export async function withUndo<T>(work: (undo: UndoStack) => Promise<T>): Promise<T> {
  const undo = new UndoStack();
  try {
    const result = await work(undo);
    undo.disarm();
    return result;
  } catch (error) {
    await undo.unwind();
    throw error;
  }
}
