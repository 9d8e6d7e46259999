import { setTimeout as delay } from 'node:timers/promises';
import { ZvolError } from './errors.ts';
import type { Keeper } from './keeper.ts';

const MiB = 2 ** 20;

/** Bytes of a pool that imports leave alone: its last ones are written at a crawl, and then fail as if disks did. */
export function reserveOf(poolSize: number): number {
  return Math.min(Math.max(poolSize / 32, 16 * MiB), 1024 * MiB);
}

/** Bytes that may be written without a look at the room in between, where there is little. */
const smallestStep = 4 * MiB;

/** Milliseconds between looks at what another program writes. */
const pause = 500;
/** Of these, one in so many is for a pool that seems to have plenty: others write there, too. */
const seldom = 20;

interface Left {
  readonly free: number;
  /** What of it may be taken. */
  readonly room: number;
}

/**
 * Looks what there is in a pool. What is about to be written counts only when it has been.
 * @param settled that nothing was written since the last look.
 */
async function look({ zfs, pool }: Keeper, settled: boolean): Promise<Left> {
  if (!settled) await zfs.change('zpool', 'sync', pool);
  const [[used, free] = []] = await zfs.ask('zfs', 'list', '-Hp', '-o', 'used,available', pool);
  return { free: Number(free), room: Number(free) - reserveOf(Number(used) + Number(free)) };
}

function full({ pool }: Keeper, { free }: Left): ZvolError {
  return new ZvolError(
    'RESOURCE_EXHAUSTED',
    `there is no room left in the pool ${pool}: it has ${Math.floor(free / MiB)} MiB free, which imports leave alone`,
  );
}

/** Looks at a pool's room while content is written to it: how much it takes is known only then, since ZFS compresses it. */
export class RoomWatch {
  readonly #keeper: Keeper;
  #next = 0;

  constructor(keeper: Keeper) {
    this.#keeper = keeper;
  }

  /**
   * To be called with how many bytes are written, the first time before there are any.
   * @param flush has them reach the pool: what waits in the guest's memory has no room yet
   * @throws ZvolError `RESOURCE_EXHAUSTED`
   */
  async wrote(bytes: number, flush: () => Promise<void>): Promise<void> {
    if (bytes < this.#next) return;
    if (bytes > 0) await flush();
    const left = await look(this.#keeper, bytes === 0);
    if (left.room <= 0) throw full(this.#keeper, left);
    this.#next = bytes + Math.max(left.room / 4, smallestStep);
  }

  /**
   * Looks while another program writes, and ends it before the room does.
   * @param most bytes that it writes at most. @param done tells how many of them it has written, roughly
   * @throws ZvolError `RESOURCE_EXHAUSTED`
   */
  async during<T>(
    signal: AbortSignal,
    { most, done }: { readonly most: number; readonly done: () => number },
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const first = await look(this.#keeper, true);
    if (first.room <= 0) throw full(this.#keeper, first);
    let enough = first.room >= most;
    let ticks = 0;
    return watching(signal, work, async () => {
      ticks += 1;
      if (enough && ticks % seldom !== 0) return undefined;
      const written = done();
      const left = await look(this.#keeper, false);
      enough = left.room >= most - written;
      return left.room <= 0 ? full(this.#keeper, left) : undefined;
    });
  }
}

/** True if a pool has no room for imports; a pool that can't be asked has other troubles. */
export async function isFull(keeper: Keeper): Promise<boolean> {
  try {
    return (await look(keeper, false)).room <= 0;
  } catch {
    return false;
  }
}

/**
 * Does something, and looks every now and then whether it may go on.
 * @param objection what is against it, if anything; it is the error that ends the work. One that can't look has none.
 */
export async function watching<T>(
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
  objection: () => Promise<Error | undefined>,
): Promise<T> {
  const stop = new AbortController();
  const over = new AbortController();
  const watch = async (): Promise<void> => {
    while (!over.signal.aborted) {
      await delay(pause, undefined, { signal: over.signal });
      const found = await objection().catch(() => undefined);
      if (found) return stop.abort(found);
    }
  };
  const watched = watch().catch(() => undefined);
  try {
    return await work(AbortSignal.any([signal, stop.signal]));
  } catch (error) {
    throw stop.signal.aborted && !signal.aborted ? stop.signal.reason : error;
  } finally {
    over.abort();
    await watched;
  }
}
