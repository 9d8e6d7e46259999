import { spawnSync } from 'node:child_process';

/** Seconds of one run of a command; throws if it fails, because a failing command's time means nothing. */
export function seconds(
  argv: readonly [string, ...string[]],
  env: Readonly<Record<string, string>> = {},
): number {
  const [program, ...args] = argv;
  const begin = process.hrtime.bigint();
  const { status, stderr, error } = spawnSync(program, args, {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  const end = process.hrtime.bigint();
  if (error) throw error;
  if (status !== 0) throw new Error(`${argv.join(' ')} exited ${String(status)}:\n${stderr}`);
  return Number(end - begin) / 1e9;
}

export interface Pair {
  readonly a: number;
  readonly b: number;
  /** Median of the ratios a/b, taken pair by pair, so that drift of the machine cancels out. */
  readonly ratio: number;
}

/** Runs two commands in turn, a warm-up of each first; medians in seconds. */
export function inTurn(runs: number, a: () => number, b: () => number): Pair {
  a();
  b();
  return pairOf(Array.from({ length: runs }, () => ({ a: a(), b: b() })));
}

/** As `inTurn`, for work whose time is taken here. */
export async function inTurnAsync(
  runs: number,
  a: () => Promise<unknown>,
  b: () => Promise<unknown>,
): Promise<Pair> {
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const begin = performance.now();
    await work();
    return (performance.now() - begin) / 1000;
  };
  await a();
  await b();
  const pairs = [];
  for (let run = 0; run < runs; run += 1) pairs.push({ a: await timed(a), b: await timed(b) });
  return pairOf(pairs);
}

function pairOf(pairs: readonly { readonly a: number; readonly b: number }[]): Pair {
  return {
    a: median(pairs.map((pair) => pair.a)),
    b: median(pairs.map((pair) => pair.b)),
    ratio: median(pairs.map((pair) => pair.a / pair.b)),
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((x, y) => x - y);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  if (low === undefined || high === undefined) throw new Error('no values');
  return (low + high) / 2;
}
