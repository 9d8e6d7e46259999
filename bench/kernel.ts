import { mkdir, mkdtemp } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { jobs, KernelBench, type Round, type WithOpenZfs } from './kernel-bench.ts';
import type { KernelLog } from './kernel-log.ts';
import { seconds } from './measure.ts';
import type { Figure } from './report.ts';

/** The most that a build of each configuration may take on the disk, in bytes, where that was asked for. */
const sizes: Readonly<Record<string, number>> = { tinyconfig: 3e9, 'debian-cloud': 12e9 };

interface Settings {
  readonly config: string;
  readonly rounds: number;
}

/** The configurations that a plain make knows as well. @throws Error */
function settings(): Settings {
  const config = process.env['ZFSDEV_BENCH_CONFIG'] ?? 'tinyconfig';
  if (!['tinyconfig', 'defconfig'].includes(config))
    throw new Error(`ZFSDEV_BENCH_CONFIG: ${config} is neither tinyconfig nor defconfig`);
  return { config, rounds: Math.max(1, Number(process.env['ZFSDEV_BENCH_ROUNDS'] ?? 2)) };
}

/**
 * Kernels built by `build-kernel --builder chroot` beside the same by hand. Only on Linux; needs the network once, for the tools
 * and for Debian's sources, which are then given to both as archives: no figure has a download in it.
 */
export async function kernelFigures(home: string): Promise<Figure[]> {
  const { config, rounds } = settings();
  return withBench(home, config, async (bench) => {
    const found: Round[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      console.error(`kernel: round ${round} of ${rounds}`);
      found.push(await bench.round());
    }
    return figuresOf(config, found);
  });
}

/** The same configuration with a guest's options and OpenZFS, as most will have it, twice. */
export function openZfsKernelFigures(home: string): Promise<Figure[]> {
  const { config } = settings();
  return withBench(home, config, async (bench) => figuresWithOpenZfs(config, await bench.withOpenZfs()));
}

/** What `build-kernel` builds unless told otherwise, with OpenZFS, twice; by hand nobody has Debian's configuration. */
export function cloudKernelFigures(home: string): Promise<Figure[]> {
  const config = 'debian-cloud';
  return withBench(home, config, async (bench) => figuresWithOpenZfs(config, await bench.withOpenZfs()));
}

async function withBench(
  home: string,
  config: string,
  measure: (bench: KernelBench) => Promise<Figure[]>,
): Promise<Figure[]> {
  await mkdir(home, { recursive: true });
  const folder = await mkdtemp(join(resolve(home), 'bench-kernel-'));
  const bench = new KernelBench(resolve(home), folder, config);
  try {
    await bench.prepare();
    return await measure(bench);
  } finally {
    // Some of Debian's folders are closed even to their owner.
    seconds(['sh', '-c', 'chmod -R u+rwX "$1"; rm -rf "$1"', 'sh', folder]);
  }
}

function figuresOf(config: string, rounds: readonly Round[]): Figure[] {
  const least = (of: (round: Round) => number): number => Math.min(...rounds.map(of));
  const phases = least(({ first }) => first.phases);
  const [plain, cached] = [least((round) => round.plain), least((round) => round.plainCached)];
  const [whole, again] = [least(({ first }) => first.seconds), least(({ second }) => second.seconds)];
  const [make, makeAgain] = [least(({ first }) => first.make), least(({ second }) => second.make)];
  const taken = Math.max(...rounds.flatMap(({ first, second }) => [first.taken, second.taken]));
  const size = sizes[config];
  const percent = (ratio: number): string => `${((ratio - 1) * 100).toFixed(1)} %`;
  return [
    {
      what: `\`build-kernel --builder chroot\` of ${config}, from unpacking to modules, beyond unpacking all of it, \`make -j${jobs}\` and modules_install by hand in the same root file system`,
      measured: `${percent(phases / plain)} (${phases.toFixed(1)} s against ${plain.toFixed(1)} s; ${percent(phases / cached)} where both fill a ccache; the whole command ${whole.toFixed(1)} s)`,
      asked: 'at most 5 %',
      met: phases / plain <= 1.05,
      values: { phases, plain, plainWithCache: cached, whole },
    },
    {
      what: `\`build-kernel --builder chroot\` of the same ${config} again, with ccache, against the first time`,
      measured: `1/${(whole / again).toFixed(1)} (${again.toFixed(1)} s against ${whole.toFixed(1)} s; its make 1/${(make / makeAgain).toFixed(1)})`,
      asked: 'at most 1/3',
      met: again / whole <= 1 / 3,
      values: { again, first: whole, make, makeAgain },
    },
    {
      what: `the most that \`build-kernel --builder chroot\` of ${config} takes on the disk, its root file system and ccache included`,
      measured: `${(taken / 1e9).toFixed(2)} GB`,
      ...(size === undefined ? {} : { asked: `at most ${size / 1e9} GB`, met: taken <= size }),
      values: { bytes: taken },
    },
    costFigure(
      config,
      rounds.map(({ first }) => first),
    ),
  ];
}

/** The same figures of a build as most will have it, but for the comparison by hand: nobody does all of this by hand. */
function figuresWithOpenZfs(config: string, { first, second }: WithOpenZfs): Figure[] {
  const what = `${config} with a guest's options and OpenZFS`;
  const size = sizes[config];
  const taken = Math.max(first.taken, second.taken);
  const [whole, again] = [first.seconds, second.seconds];
  return [
    {
      what: `\`build-kernel --builder chroot\` of ${what} again, with ccache, against the first time`,
      measured: `1/${(whole / again).toFixed(1)} (${again.toFixed(1)} s against ${whole.toFixed(1)} s; its make ${second.make.toFixed(1)} s against ${first.make.toFixed(1)} s, OpenZFS ${second.zfs.toFixed(1)} s against ${first.zfs.toFixed(1)} s)`,
      asked: 'at most 1/3',
      met: again / whole <= 1 / 3,
      values: {
        again,
        first: whole,
        make: first.make,
        makeAgain: second.make,
        zfs: first.zfs,
        zfsAgain: second.zfs,
      },
    },
    {
      what: `the most that \`build-kernel --builder chroot\` of ${what} takes on the disk, its root file system and ccache included`,
      measured: `${(taken / 1e9).toFixed(2)} GB`,
      ...(size === undefined ? {} : { asked: `at most ${size / 1e9} GB`, met: taken <= size }),
      values: { bytes: taken },
    },
    costFigure(what, [first]),
  ];
}

/** What the estimate before a make stands on (src/kernel/progress.ts), from the first round's make that was least disturbed. */
function costFigure(config: string, builds: readonly KernelLog[]): Figure {
  const [best] = [...builds].sort((a, b) => a.make - b.make);
  if (!best) throw new Error('no round was measured');
  const { perObject, ofMeasure, fitted, objects, perOption, estimated } = best.cost();
  return {
    what: `an object of ${config}, of a processor's time`,
    measured: `${perObject.toFixed(3)} s (${objects} objects where ${estimated} were estimated: objectsPerOption would be ${perOption.toFixed(2)}; ${ofMeasure.toFixed(2)} x the file that is compiled for a measure; costOfObject would be ${fitted.toFixed(2)})`,
    values: { perObject, ofMeasure, fitted, objects, perOption, estimated },
  };
}
