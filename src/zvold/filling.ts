import { discard } from './discard.ts';
import { Left } from './ends.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { findVolumeName, ownFolder, property } from './inventory.ts';
import type { ImportJob, ImportState } from './jobs.ts';
import { isSuspended, throwIfCalledOff, type Kept } from './kept.ts';
import { deviceOf, holding, inventory, lockOf, type Keeper } from './keeper.ts';
import type { Inventory } from './model.ts';
import { alignSize } from './names.ts';
import { isFull } from './room.ts';

/** An import, as those see it who do its work. */
export interface Task {
  readonly job: ImportJob;
  readonly signal: AbortSignal;
  /** Begins a phase of so many bytes, 0 where nobody knows; what it gives is told how many are done. */
  readonly phase: (state: ImportState, total: number) => (done: number) => void;
  /** Has the journal say how much of a download is safe. */
  readonly keep: (kept: Kept) => void;
  /** Has the journal say that nothing is. @throws ZvolError if it can't be written */
  readonly forget: () => void;
}

/** Makes the zvols of imports: each is nobody's until it is whole, and then becomes a template or a volume. */
export class Filling {
  readonly #keeper: Keeper;
  readonly #largest: number;
  readonly #report: (words: string) => void;

  /** @param largest bytes that an import may make at most. */
  constructor(keeper: Keeper, largest: number, report: (words: string) => void) {
    this.#keeper = keeper;
    this.#largest = largest;
    this.#report = report;
  }

  /** The size of the zvol for so much content. @throws ZvolError `INVALID_ARGUMENT`, `RESOURCE_EXHAUSTED` */
  sizeFor(job: ImportJob, content: number): number {
    if (job.size !== undefined && job.size < content)
      throw new ZvolError(
        'INVALID_ARGUMENT',
        `the source has ${content} bytes, more than the ${job.size} that were asked for`,
      );
    const size = alignSize(Math.max(job.size ?? 0, content), job.blockSize);
    if (size > this.#largest)
      throw new ZvolError(
        'RESOURCE_EXHAUSTED',
        `${size} bytes are more than the ${this.#largest} that an import may make`,
      );
    return size;
  }

  /**
   * Makes a zvol, has it filled, and makes of it what was asked for; whatever fails takes the zvol away again. One that is left to
   * the next daemon stays.
   * @param isThere the zvol is there, of the right size, since an earlier daemon began to fill it
   */
  async fill(
    { job, signal }: Task,
    content: number,
    work: (device: string, room: number) => Promise<void>,
    isThere = false,
  ): Promise<void> {
    const { machine, pool } = this.#keeper;
    const size = this.sizeFor(job, content);
    await makeOwnFolder(this.#keeper);
    signal.throwIfAborted();
    const dataset = `${pool}/${ownFolder}/${job.id}`;
    if (!isThere) await this.#create(job, dataset, size);
    try {
      const device = deviceOf(this.#keeper, dataset);
      await machine.awaitDevice(device, true);
      await work(device, size);
      await machine.flush(device);
      throwIfCalledOff(signal);
      if (job.target === 'template') await this.#becomeTemplate(job, dataset, signal);
      else await this.#becomeVolume(job, dataset, signal);
    } catch (error) {
      if (isSuspended(signal)) throw error;
      const meaning = await this.#meaningOf(error);
      if (!(await this.#isWhole(job, meaning))) throw meaning;
    }
    await this.#tellMade(job);
  }

  async #create({ id, name, target, blockSize }: ImportJob, dataset: string, size: number): Promise<void> {
    const properties = [`${property.import}=${id}`, `${property.volumeId}=${id}`];
    try {
      await this.#keeper.zfs.change(
        'zfs',
        ...['create', '-s', '-b', String(blockSize), '-V', String(size)],
        ...properties.flatMap((each) => ['-o', each]),
        dataset,
      );
    } catch (error) {
      // Not refused: it may come about all the same.
      if (error instanceof ZvolError && error.code === 'DEADLINE_EXCEEDED')
        await this.#isWhole({ id, name, target }, error);
      throw error;
    }
  }

  /** A pool without room fails writes, and what was cached of them before, as if a disk did. */
  async #meaningOf(error: unknown): Promise<unknown> {
    const isIo =
      error instanceof Error &&
      (('code' in error && error.code === 'EIO') || /Input\/output error/.test(error.message));
    if (!isIo || !(await isFull(this.#keeper))) return error;
    return new ZvolError('RESOURCE_EXHAUSTED', 'the pool was full before all of it was written', error);
  }

  /**
   * Looks what there is of an import of which a step failed, and takes that away. A step that was given up may have come about all
   * the same: only what still carries the import's mark is nobody's, wherever it lies by now.
   * @returns true if it is whole, and stays. @throws ZvolError with what is left, and why, beside what had happened
   */
  async #isWhole(
    { id, name, target }: Pick<ImportJob, 'id' | 'name' | 'target'>,
    why: unknown,
  ): Promise<boolean> {
    let found: Inventory;
    try {
      found = await inventory(this.#keeper);
    } catch (error) {
      const unknown =
        'what there is of it could not be told; if it is unfinished, it goes when zvold starts again';
      throw this.#left(why, `${unknown}: ${wordsOf(error)}`);
    }
    const unfinished = found.unfinished.find((zvol) => zvol.id === id);
    if (unfinished) {
      try {
        await discard(this.#keeper, unfinished.dataset);
      } catch (error) {
        const left = `${unfinished.dataset} could not be taken away, and goes when zvold starts again`;
        throw this.#left(why, `${left}: ${wordsOf(error)}`);
      }
      return false;
    }
    const made: readonly { readonly id: string; readonly name: string }[] =
      target === 'template' ? found.templates : found.volumes;
    return made.some((each) => each.id === id && each.name === name);
  }

  #left(why: unknown, words: string): Left {
    this.#report(words);
    return new Left(why, words);
  }

  /** As long as a zvol carries the import's id it is nobody's, and goes at the next start; taking that away is the last step. */
  async #becomeTemplate(job: ImportJob, dataset: string, signal: AbortSignal): Promise<void> {
    const { zfs } = this.#keeper;
    const properties = [`${property.template}=${job.name}`, `${property.templateId}=${job.id}`];
    await holding(this.#keeper, [lockOf.templates], async () => {
      const { templates } = await inventory(this.#keeper);
      const taken = templates.find(({ id, name }) => name === job.name || id === job.id);
      if (taken)
        throw new ZvolError('ALREADY_EXISTS', `there is a template "${taken.name}" (${taken.id}) by now`);
      await zfs.change('zfs', 'snapshot', ...properties.flatMap((each) => ['-o', each]), `${dataset}@img`);
      throwIfCalledOff(signal);
      await zfs.change('zfs', 'inherit', property.import, dataset);
    });
  }

  async #becomeVolume(job: ImportJob, dataset: string, signal: AbortSignal): Promise<void> {
    const { zfs, pool, machine } = this.#keeper;
    const target = `${pool}/${job.name}`;
    await holding(this.#keeper, [lockOf.ids, lockOf.volume(job.name)], async () => {
      const taken = await findVolumeName(zfs, pool, job.id);
      if (taken !== undefined)
        throw new ZvolError('ALREADY_EXISTS', `the volume "${taken}" has the id ${job.id} by now`);
      await zfs.change('zfs', 'rename', dataset, target);
      await machine.awaitDevice(deviceOf(this.#keeper, target), true);
      throwIfCalledOff(signal);
      await zfs.change('zfs', 'inherit', property.import, target);
    });
  }

  /** What has come about is not undone since it could not be told: watchers see it with the next thing they are told of it. */
  async #tellMade({ id, name, target }: ImportJob): Promise<void> {
    const { hub } = this.#keeper;
    if (!hub.isWatched) return;
    try {
      // So that nobody is told of its end first.
      const lock = target === 'template' ? lockOf.templates : lockOf.volume(name);
      await holding(this.#keeper, [lock], async () => {
        const { templates, volumes } = await inventory(this.#keeper);
        const template = target === 'template' ? templates.find((each) => each.id === id) : undefined;
        const volume = target === 'volume' ? volumes.find((each) => each.id === id) : undefined;
        if (template) hub.tell({ kind: 'template', template });
        if (volume) hub.tell({ kind: 'volume', volume });
      });
    } catch {
      // The pool went away behind the last step.
    }
  }
}

/** Makes the folder of zvold's own datasets, if it is not there. */
export async function makeOwnFolder({ zfs, pool }: Keeper): Promise<void> {
  const options = ['-o', 'canmount=off', '-o', 'mountpoint=none'];
  try {
    await zfs.change('zfs', 'create', ...options, `${pool}/${ownFolder}`);
  } catch (error) {
    if (!(error instanceof ZvolError) || error.code !== 'ALREADY_EXISTS') throw error;
  }
}
