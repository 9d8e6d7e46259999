import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import type { Command } from '../../../src/zvold/command.ts';
import { Exports } from '../../../src/zvold/export.ts';
import { Imports } from '../../../src/zvold/imports.ts';
import type { ImportJob } from '../../../src/zvold/jobs.ts';
import { newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import type { Policy } from '../../../src/zvold/policy.ts';
import type { Recoverable } from '../../../src/zvold/recovery.ts';
import { FakeZfs } from '../../fakes/zfs.ts';
import { call } from '../../support/call.ts';

/** A daemon's insides on a pool in memory, whose volumes are files. */
export class ZvoldHouse {
  readonly folder: string;
  readonly fake: FakeZfs;
  keeper: Keeper;
  /** What plays qemu-img. */
  convert: Command = () => Promise.reject(new Error('qemu-img was not expected'));
  policy: Policy;
  /** Milliseconds without a byte after which a client or a server is given up. */
  stallAfter = 60_000;
  imports: Imports;
  exports: Exports;
  /** What the daemon said to nobody in particular. */
  readonly reports: string[] = [];

  private constructor(folder: string) {
    this.folder = folder;
    this.fake = new FakeZfs(join(folder, 'devices'));
    this.keeper = this.#newKeeper();
    this.policy = { folders: [join(folder, 'images')], allowLocalAddresses: true, largest: 2 ** 40 };
    this.imports = this.anew();
    this.exports = this.anewExports();
  }

  static async open(): Promise<ZvoldHouse> {
    return new ZvoldHouse(await mkdtemp(join(tmpdir(), 'zfsdev-zvold-')));
  }

  #newKeeper(): Keeper {
    return newKeeper(this.fake.pool, this.fake.command, this.fake.machine);
  }

  /** Another daemon, which shares nothing with the one before: its locks go with a daemon that is killed. */
  restart(): Imports {
    this.keeper = this.#newKeeper();
    return this.anew();
  }

  /** As a daemon that is started again finds things. */
  anew(): Imports {
    this.imports = new Imports(this.keeper, {
      command: this.#command,
      policy: this.policy,
      folder: join(this.folder, 'state'),
      atOnce: 2,
      stallAfter: this.stallAfter,
      retryPause: 1,
      report: (words) => void this.reports.push(words),
    });
    return this.imports;
  }

  /** As `anew`, for exports. */
  anewExports(): Exports {
    this.exports = new Exports(this.keeper, {
      command: this.#command,
      folder: join(this.folder, 'state'),
      report: (words) => void this.reports.push(words),
    });
    return this.exports;
  }

  readonly #command: Command = (argv, options) =>
    argv[0] === 'qemu-img' ? this.convert(argv, options) : this.fake.command(argv, options);

  /** Waits until an import is at something. */
  async reached(id: string, state: ImportJob['state']): Promise<void> {
    await expect.poll(() => this.imports.get(id).state, { timeout: 30_000 }).toBe(state);
  }

  /** No dataset of an import or an export is left, nor any file. */
  async expectNothingLeft(...but: readonly string[]): Promise<void> {
    const own = ['tank', 'tank/.zvold', ...but];
    expect([...this.fake.datasets.keys()].filter((name) => !own.includes(name))).toEqual([]);
    for (const folder of ['spool', 'exports'])
      expect(await readdir(join(this.folder, 'state', folder)).catch(() => [])).toEqual([]);
  }

  device(dataset: string): string {
    return join(this.folder, 'devices', dataset);
  }

  /** Waits for the end of an import. */
  async ended(id: string): Promise<ImportJob> {
    const stop = new AbortController();
    for await (const told of this.keeper.hub.watch(
      () => Promise.resolve([{ kind: 'import', job: this.imports.get(id) }]),
      stop.signal,
    )) {
      if (told.kind === 'import' && told.job.id === id && told.job.completed !== undefined) {
        stop.abort();
        return told.job;
      }
    }
    throw new Error('the watch ended');
  }

  async close(): Promise<void> {
    await this.imports.close();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Tidies up as a daemon does at its start; gives what it says. */
export async function recovered(what: Recoverable): Promise<string[]> {
  const told: string[] = [];
  await what.recover((words) => void told.push(words));
  return told;
}

/** qemu-img itself, on the fake's volumes: they are files, which know no --target-is-zero. */
export const convertToFile: Command = (argv) => {
  call('qemu-img', ...argv.slice(1).filter((word) => word !== '--target-is-zero' && word !== '-p'));
  return Promise.resolve({ exitCode: 0, stdout: '', stderr: '' });
};

/** How something failed that has to, in the host's words for it. @throws whatever else it threw */
export async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const error: unknown = await work.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  );
  if (error instanceof Failure) return error;
  throw error;
}
