import { spawnSync } from 'node:child_process';

/** Seconds after which a command is ended: none of them takes as long, and an unattended run must end. */
const patience = 4 * 3600;

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
    timeout: patience * 1000,
    maxBuffer: 2 ** 28,
  });
  const end = process.hrtime.bigint();
  if (error) throw error;
  if (status !== 0) throw new Error(`${argv.join(' ')} exited ${String(status)}:\n${stderr}`);
  return Number(end - begin) / 1e9;
}

export interface Pair {
  readonly a: number;
  readonly b: number;
  /** Of a to b: the median of all turns', each taken for itself so that drift of the machine cancels out, unless said otherwise. */
  readonly ratio: number;
}

/** Runs two commands in turn, a warm-up of each first; medians in seconds. */
export function inTurn(runs: number, a: () => number, b: () => number): Pair {
  a();
  b();
  return pairOf(Array.from({ length: runs }, () => ({ a: a(), b: b() })));
}

/** Seconds that this work took. */
export async function timed(work: () => unknown): Promise<number> {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}

/**
 * Runs two pieces of work in turn, a warm-up of each first; each gives its own seconds, so that what it prepares and takes away
 * is not counted. The least of each, and the ratio of these: what disturbs a short piece of work only ever adds to it.
 */
export async function leastInTurn(
  runs: number,
  a: () => Promise<number>,
  b: () => Promise<number>,
): Promise<Pair> {
  await a();
  await b();
  const least = { a: Infinity, b: Infinity };
  for (let run = 0; run < runs; run += 1) {
    least.a = Math.min(least.a, await a());
    least.b = Math.min(least.b, await b());
  }
  return { ...least, ratio: least.a / least.b };
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
