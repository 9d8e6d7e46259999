import { setTimeout as delay } from 'node:timers/promises';
import { wordsOf, ZvolError } from './errors.ts';
import { deviceOf, requirePool, type Keeper } from './keeper.ts';

/** Milliseconds for whoever has a device open to let go of it: udev looks at each that comes or was written to. */
const deadline = 30_000;

/**
 * Destroys a zvol of zvold's own with its snapshots; while somebody has its device open, as soon as nobody has any more.
 * One that is not there is fine.
 * @throws ZvolError `FAILED_PRECONDITION` if the device was not let go of in time, `UNAVAILABLE`, others in ZFS's own words
 */
export async function discard(keeper: Keeper, dataset: string, patience = deadline): Promise<void> {
  const device = deviceOf(keeper, dataset);
  const end = performance.now() + patience;
  for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
    // On one that is suspended, `zfs` itself would hang.
    await requirePool(keeper);
    try {
      return await keeper.zfs.change('zfs', 'destroy', '-r', dataset);
    } catch (error) {
      if (!(error instanceof ZvolError)) throw error;
      if (error.code === 'NOT_FOUND') return;
      if (error.code !== 'FAILED_PRECONDITION' || performance.now() > end) throw error;
    }
    do await delay(pause);
    while (performance.now() < end && (await keeper.machine.usersOf(device)).length > 0);
  }
}

/**
 * Destroys leftovers, each of which may be the last one: what is in the way of one is in no other's.
 * @param leftovers datasets, each with the words for its end. @param tell told those, and what stays
 * @throws ZvolError of the first that stays, once all others are gone
 */
export async function discardAll(
  keeper: Keeper,
  leftovers: readonly (readonly [dataset: string, words: string])[],
  tell: (words: string) => void,
): Promise<void> {
  let first: Error | undefined;
  for (const [dataset, words] of leftovers) {
    try {
      await discard(keeper, dataset);
      tell(words);
    } catch (error) {
      first ??= error instanceof Error ? error : new Error(String(error));
      tell(`${dataset} could not be destroyed: ${wordsOf(error)}`);
    }
  }
  if (first) throw first;
}
