/** How a batch goes about jobs of which some may find no room. */
export interface BatchOptions<T> {
  readonly count: number;
  /** The most that run at a time. */
  readonly limit: number;
  /** True for the result of a job that found no room: it is tried again once another one has ended. */
  readonly foundNoRoom: (result: T) => boolean;
}

/** Runs `count` jobs, side by side as far as they fit; gives their results in order. */
export async function runBatch<T>(
  { count, limit, foundNoRoom }: BatchOptions<T>,
  job: (index: number) => Promise<T>,
): Promise<T[]> {
  const results: T[] = [];
  const waiting = Array.from({ length: count }, (_, index) => index);
  let active = 0;
  let ended: () => void = () => undefined;
  let nextEnd = new Promise<void>((resolve) => (ended = resolve));
  const worker = async (): Promise<void> => {
    for (let index = waiting.shift(); index !== undefined; index = waiting.shift()) {
      active += 1;
      const result = await job(index);
      active -= 1;
      if (foundNoRoom(result) && active > 0) {
        waiting.unshift(index);
        await nextEnd;
        continue;
      }
      results[index] = result;
      ended();
      nextEnd = new Promise<void>((resolve) => (ended = resolve));
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, count) }, worker));
  return results;
}
