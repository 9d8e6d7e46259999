import { Failure } from '../core/errors.ts';
import type { Context } from './context.ts';
import { bytesMovedBy, takenByDisksOf } from './process-activity.ts';
import type { RunOptions, RunResult } from './run.ts';

/** So long may a program read and write nothing before it counts as hung. The network file system of a host may pause for minutes. */
const patience = 180_000;
/** As long as a timer can be told. */
const unlimited = 2 ** 31 - 1;

export interface WatchOptions extends Omit<RunOptions, 'deadline' | 'signal' | 'onStart'> {
  /** Milliseconds without any activity after which it is given up; three minutes unless told. */
  readonly patience?: number;
  /** What tells how far it is where the system doesn't tell what a process reads and writes. */
  readonly activity?: () => number;
}

/**
 * Runs a program that takes as long as its files are large: however long that is, only one that gets nowhere is given up.
 * @throws Failure `deadline` for that one; everything else as `Run`
 */
export async function runWatched(
  ctx: Pick<Context, 'run' | 'signal'>,
  argv: readonly [string, ...string[]],
  options: WatchOptions,
): Promise<RunResult> {
  const { patience: longest = patience, activity, ...rest } = options;
  const stalled = new AbortController();
  let watch: NodeJS.Timeout | undefined;
  const onStart = (pid: number): void => {
    let [before, since]: [string | undefined, number] = [undefined, performance.now()];
    const look = async (): Promise<void> => {
      const moved = (await bytesMovedBy(pid)) ?? activity?.();
      const now = moved === undefined ? undefined : `${moved} ${await takenByDisksOf(pid)}`;
      if (now === undefined || now !== before) [before, since] = [now, performance.now()];
      else if (performance.now() - since >= longest) stalled.abort();
    };
    watch = setInterval(() => void look(), Math.min(1_000, longest / 4));
  };
  try {
    const signal = AbortSignal.any([ctx.signal, stalled.signal]);
    return await ctx.run(argv, { ...rest, deadline: unlimited, signal, onStart });
  } catch (error) {
    if (!stalled.signal.aborted || ctx.signal.aborted) throw error;
    const seconds = Math.round(longest / 1000);
    throw new Failure(
      'deadline',
      `${argv[0]} has read and written nothing for ${seconds} s, and was given up`,
      {
        hint: "look whether the host's disk hangs (dmesg), and try again",
        cause: error,
      },
    );
  } finally {
    clearInterval(watch);
  }
}
