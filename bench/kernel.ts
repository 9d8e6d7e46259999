import { cp, link, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { readIfExists } from '../src/host/files.ts';
import { lastLines } from '../src/host/run.ts';
import { contained } from '../src/image/bootstrap.ts';
import { isRoot } from '../src/image/workplace.ts';
import { asOwnRoot } from '../src/kernel/chroot-builder.ts';
import { tinyKernel } from '../test/support/tiny-kernel.ts';
import { readKernelLog, type KernelLog } from './kernel-log.ts';
import { seconds } from './measure.ts';
import type { Figure } from './report.ts';
import { runWatched, type Watched } from './watched.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const jobs = availableParallelism();

/** The most that a build of each configuration may take on the disk, in bytes, where that was asked for. */
const sizes: Readonly<Record<string, number>> = { tinyconfig: 3e9 };

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

/** One build with what a machine of zfsdev's needs and OpenZFS, as most will have it; and the same again. */
interface WithOpenZfs {
  readonly first: Watched & KernelLog;
  readonly second: Watched & KernelLog;
}

/** What is compared in one round; all of it unpacks and compiles the same archive, in the same root file system. */
interface Round {
  /** By zfsdev, with an empty cache of the compiler's. */
  readonly first: Watched & KernelLog;
  /** The same again, with what the first one left in the cache. */
  readonly second: Watched & KernelLog;
  /** By hand, in seconds. */
  readonly plain: number;
  /** By hand with a cache that is empty: what ccache itself costs is in it. */
  readonly plainCached: number;
}

/**
 * Kernels built by `build-kernel --builder chroot` beside the same by hand. Only on Linux; needs the network once, for the tools
 * and for Debian's sources, which are then given to both as archives: no figure has a download in it.
 */
export async function kernelFigures(home: string): Promise<Figure[]> {
  const { config, rounds } = settings();
  await mkdir(home, { recursive: true });
  const folder = await mkdtemp(join(resolve(home), 'bench-kernel-'));
  const bench = new KernelBench(resolve(home), folder, config);
  try {
    await bench.prepare();
    const found: Round[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      console.error(`kernel: round ${round} of ${rounds}`);
      found.push(await bench.round());
    }
    console.error('kernel: with OpenZFS');
    return [...figuresOf(config, found), ...figuresWithOpenZfs(config, await bench.withOpenZfs())];
  } finally {
    // Some of Debian's folders are closed even to their owner.
    seconds(['sh', '-c', 'chmod -R u+rwX "$1"; rm -rf "$1"', 'sh', folder]);
  }
}

class KernelBench {
  readonly #home: string;
  readonly #folder: string;
  readonly #config: string;

  constructor(home: string, folder: string, config: string) {
    this.#home = home;
    this.#folder = folder;
    this.#config = config;
  }

  get #source(): string {
    return join(this.#folder, 'linux.tar.xz');
  }

  get #zfs(): string {
    return join(this.#folder, 'zfs.tar');
  }

  /** Has the tools made, which are kept; and takes the root file system of a build that was nothing, for what is done by hand. */
  async prepare(): Promise<void> {
    console.error('kernel: preparing the tools, and fetching the source');
    const tiny = await tinyKernel(join(this.#folder, 'tiny'));
    const before = await this.#builds();
    const options = ['--source', tiny, '--localversion', `-${Date.now()}`, '--zfs', 'none', '--keep'];
    seconds(this.#command(...options), { ZFSDEV_HOME: this.#home });
    const [id, ...more] = (await this.#builds()).filter((name) => !before.includes(name));
    if (id === undefined || more.length > 0) throw new Error('the build that was kept is not to be found');
    await rename(join(this.#home, 'builds', id, 'root'), join(this.#folder, 'root'));
    await rm(join(this.#home, 'builds', id), { recursive: true });
    const place = await this.#place('fetch');
    this.#enter(place, '-', 'fetch');
    await rename(join(place, 'linux.tar.xz'), this.#source);
    await rename(join(place, 'zfs.tar'), this.#zfs);
    await rm(place, { recursive: true });
  }

  async round(): Promise<Round> {
    await this.#forget();
    const first = await this.#byZfsdev();
    const plain = await this.#byHand('plain', '-');
    const second = await this.#byZfsdev();
    const cache = join(this.#folder, 'ccache');
    await mkdir(cache);
    const plainCached = await this.#byHand('plain with ccache', cache);
    await rm(cache, { recursive: true });
    return { first, second, plain, plainCached };
  }

  async withOpenZfs(): Promise<WithOpenZfs> {
    await this.#forget();
    const first = await this.#byZfsdev(this.#zfs);
    return { first, second: await this.#byZfsdev(this.#zfs) };
  }

  /** Empties the cache of the compiler's. */
  async #forget(): Promise<void> {
    await rm(join(this.#home, 'builds', '.ccache'), { recursive: true, force: true });
  }

  async #byZfsdev(zfs = 'none'): Promise<Watched & KernelLog> {
    const options = ['--source', this.#source, '--localversion', '-bench', '--zfs', zfs];
    const found = await runWatched(this.#command(...options), { ZFSDEV_HOME: this.#home }, this.#home);
    const { log } = JSON.parse(found.stdout.trim().split('\n').at(-1) ?? '') as { log: string };
    console.error(`kernel: by zfsdev ${found.seconds.toFixed(1)} s`);
    return { ...found, ...readKernelLog(await readFile(log, 'utf8')) };
  }

  async #byHand(name: string, cache: string): Promise<number> {
    const place = await this.#place('plain');
    await link(this.#source, join(place, 'linux.tar.xz'));
    const took = this.#enter(place, cache, name);
    await rm(place, { recursive: true });
    return took;
  }

  #command(...options: readonly string[]): readonly [string, ...string[]] {
    const fixed = ['--builder', 'chroot', '--config', this.#config, '--json', '--overcommit'];
    const output = ['--jobs', String(jobs), '--output', join(this.#folder, 'out'), '--overwrite'];
    return [...zfsdev, 'build-kernel', ...fixed, ...output, ...options];
  }

  async #builds(): Promise<string[]> {
    return (await readdir(join(this.#home, 'builds')).catch(() => [])).filter((name) => name !== '.ccache');
  }

  /** A folder that the root file system sees as /build, with the script that is called there in the place of the pipeline's. */
  async #place(script: 'fetch' | 'plain'): Promise<string> {
    const place = join(this.#folder, 'place');
    await mkdir(join(place, 'provision'), { recursive: true });
    await cp(join('bench', `kernel-${script}.sh`), join(place, 'provision', 'kernel-build.sh'));
    await writeFile(join(place, 'settings.sh'), `CONFIG=${this.#config}\nJOBS=${jobs}\n`);
    return place;
  }

  #enter(place: string, cache: string, name: string): number {
    // As the builder enters its own root file system.
    const [program, ...words] = isRoot() ? contained : asOwnRoot;
    const root = join(this.#folder, 'root');
    const script = join('provision', 'kernel-enter.sh');
    try {
      const took = seconds([program, ...words, 'sh', script, root, place, cache, 'by-hand']);
      console.error(`kernel: by hand, ${name}: ${took.toFixed(1)} s`);
      return took;
    } catch (error) {
      const end = lastLines(readIfExists(join(place, 'log')) ?? '', 30);
      throw new Error(`${name} by hand failed; its log ends with\n${end}`, { cause: error });
    }
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
      what: `\`build-kernel --builder chroot\` of ${config}, from unpacking to modules, beyond unpacking, \`make -j${jobs}\` and modules_install by hand in the same root file system`,
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
