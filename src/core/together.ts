/**
 * As `Promise.all`, but a failure comes only once all of them have ended: what they still write is there before somebody takes
 * it away.
 */
export async function together<T extends readonly unknown[] | []>(
  works: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(works);
  return Promise.all(works);
}
