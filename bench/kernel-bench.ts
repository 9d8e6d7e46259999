import { cp, link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readIfExists } from '../src/host/files.ts';
import { lastLines } from '../src/host/run.ts';
import { contained } from '../src/image/bootstrap.ts';
import { isRoot } from '../src/image/workplace.ts';
import { asOwnRoot } from '../src/kernel/chroot-builder.ts';
import { tinyKernel } from '../test/support/tiny-kernel.ts';
import { readKernelLog, type KernelLog } from './kernel-log.ts';
import { seconds } from './measure.ts';
import { runWatched, type Watched } from './watched.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
export const jobs = availableParallelism();

/**
 * Milliseconds between two builds. What the last one has deleted goes back to the machine that this one may run on, which takes a
 * while, and to ask for memory meanwhile three times as long as ever.
 */
const rest = 60_000;

/** One build with what a machine of zfsdev's needs and OpenZFS, as most will have it; and the same again. */
export interface WithOpenZfs {
  readonly first: Watched & KernelLog;
  readonly second: Watched & KernelLog;
}

/** What is compared in one round; all of it unpacks and compiles the same archive, in the same root file system. */
export interface Round {
  /** By zfsdev, with an empty cache of the compiler's. */
  readonly first: Watched & KernelLog;
  /** The same again, with what the first one left in the cache. */
  readonly second: Watched & KernelLog;
  /** By hand, in seconds. */
  readonly plain: number;
  /** By hand with a cache that is empty: what ccache itself costs is in it. */
  readonly plainCached: number;
}

/** A place in which kernels are built by `build-kernel --builder chroot`, and by hand. */
export class KernelBench {
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
    await delay(rest);
    const found = await runWatched(this.#command(...options), { ZFSDEV_HOME: this.#home }, this.#home);
    const { log } = JSON.parse(found.stdout.trim().split('\n').at(-1) ?? '') as { log: string };
    console.error(`kernel: by zfsdev ${found.seconds.toFixed(1)} s`);
    return { ...found, ...readKernelLog(await readFile(log, 'utf8')) };
  }

  async #byHand(name: string, cache: string): Promise<number> {
    const place = await this.#place('plain');
    await link(this.#source, join(place, 'linux.tar.xz'));
    await delay(rest);
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
