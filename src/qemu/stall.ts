import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from '../core/errors.ts';

/** Tells work that takes its time from work that hangs. */
export interface Watch {
  /** A number that grows while QEMU gets anywhere: bytes that it has read and written, for instance. */
  readonly activity: () => Promise<number | undefined>;
  /** Counts beside it, and is no part of the progress: what the host's disks took while QEMU waits for them. */
  readonly waiting?: () => Promise<number | undefined>;
  /** Milliseconds without any after which nothing more is to be hoped for. */
  readonly patience: number;
  /** Told by how much `activity` has grown since the start. */
  readonly progress?: (bytes: number) => void;
  readonly signal: AbortSignal;
  /** What to do about a QEMU that hangs. */
  readonly wayOut?: string;
  /** The host's, unless a test has another one. */
  readonly clock?: Clock;
}

/** What time it is in milliseconds, and how to let some go by. */
export interface Clock {
  now(): number;
  wait(milliseconds: number, signal?: AbortSignal): Promise<void>;
}

const hostClock: Clock = {
  now: () => performance.now(),
  wait: (milliseconds, signal) => delay(milliseconds, undefined, signal ? { signal } : {}),
};

export function clockOf({ clock = hostClock }: Pick<Watch, 'clock'>): Clock {
  return clock;
}

/** For an answer that comes when it comes: somebody else watches. As long as a timer can be told. */
export const unlimited = { deadline: 2 ** 31 - 1 } as const;

/**
 * Does something that takes as long as disks are slow and memory large: however long that is, it is only given up once QEMU no
 * longer gets anywhere. What was asked of QEMU by then may still be carried out.
 * @param what as the error names it
 * @throws Failure `deadline`; whatever `work` throws
 */
export async function unlessStalled<T>(what: string, watch: Watch, work: () => Promise<T>): Promise<T> {
  const stall = stalled(what, watch);
  try {
    return await Promise.race([work(), stall.failure]);
  } finally {
    stall.end();
  }
}

function stalled(what: string, watch: Watch): { readonly failure: Promise<never>; readonly end: () => void } {
  const {
    activity,
    waiting,
    patience,
    progress,
    wayOut = "look whether the host's disk hangs (dmesg)",
  } = watch;
  const over = new AbortController();
  const clock = clockOf(watch);
  const look = async (): Promise<never> => {
    const start = await activity();
    for (let [before, since] = ['', clock.now()]; ;) {
      await clock.wait(Math.min(500, patience / 4), over.signal);
      const now = await activity();
      const seen = `${now} ${await waiting?.()}`;
      if (seen !== before) [before, since] = [seen, clock.now()];
      if (now !== undefined && start !== undefined) progress?.(now - start);
      if (clock.now() - since < patience) continue;
      throw new Failure('deadline', `${what} has made no progress for ${Math.round(patience / 1000)} s`, {
        hint: wayOut,
      });
    }
  };
  const failure = look();
  // Ended from outside, it fails with nobody waiting for it.
  failure.catch(() => undefined);
  return { failure, end: () => over.abort() };
}
