import { ZvolError } from './errors.ts';
import { ownFolder, property } from './inventory.ts';
import type { ImportJob } from './jobs.ts';
import { inventory, lockOf, type Keeper } from './keeper.ts';
import { alignSize } from './names.ts';
import { present } from './volumes.ts';

/** Makes the zvols of imports: each is nobody's until it is whole, and then becomes a template or a volume. */
export class Filling {
  readonly #keeper: Keeper;
  readonly #largest: number;

  /** @param largest bytes that an import may make at most. */
  constructor(keeper: Keeper, largest: number) {
    this.#keeper = keeper;
    this.#largest = largest;
  }

  /** Makes a zvol, has it filled, and makes of it what was asked for; whatever fails takes the zvol away again. */
  async fill(
    job: ImportJob,
    content: number,
    signal: AbortSignal,
    work: (device: string, room: number) => Promise<void>,
  ): Promise<void> {
    const { zfs, machine, pool } = this.#keeper;
    const largest = this.#largest;
    if (job.size !== undefined && job.size < content)
      throw new ZvolError(
        'INVALID_ARGUMENT',
        `the source has ${content} bytes, more than the ${job.size} that were asked for`,
      );
    const size = alignSize(Math.max(job.size ?? 0, content), job.blockSize);
    if (size > largest)
      throw new ZvolError(
        'RESOURCE_EXHAUSTED',
        `${size} bytes are more than the ${largest} that an import may make`,
      );
    await this.#makeFolder();
    const dataset = `${pool}/${ownFolder}/${job.id}`;
    const words = ['create', '-s', '-b', String(job.blockSize), '-V', String(size)];
    await zfs.change(
      'zfs',
      ...words,
      '-o',
      `${property.import}=${job.id}`,
      '-o',
      `${property.volumeId}=${job.id}`,
      dataset,
    );
    let place = dataset;
    try {
      const device = `${machine.devices}/${dataset}`;
      await machine.awaitDevice(device, true);
      await work(device, size);
      await machine.flush(device);
      signal.throwIfAborted();
      place = await this.#finish(job, dataset);
    } catch (error) {
      // A pool that is suspended does not take it away either: the next start does.
      await zfs.change('zfs', 'destroy', '-r', place).catch(() => undefined);
      throw error;
    }
  }

  async #makeFolder(): Promise<void> {
    const { zfs, pool } = this.#keeper;
    try {
      await zfs.change(
        'zfs',
        'create',
        '-o',
        'canmount=off',
        '-o',
        'mountpoint=none',
        `${pool}/${ownFolder}`,
      );
    } catch (error) {
      if (!(error instanceof ZvolError) || error.code !== 'ALREADY_EXISTS') throw error;
    }
  }

  /** As long as it carries the import's id it is nobody's, and goes at the next start; taking that away is the last step. */
  async #finish(job: ImportJob, dataset: string): Promise<string> {
    const { zfs, pool, locks, hub } = this.#keeper;
    if (job.target === 'template') {
      const options = [`${property.template}=${job.name}`, `${property.templateId}=${job.id}`].flatMap(
        (each) => ['-o', each],
      );
      await locks.holding([lockOf.templates], async () => {
        await zfs.change('zfs', 'snapshot', ...options, `${dataset}@img`);
        await zfs.change('zfs', 'inherit', property.import, dataset);
      });
      const template = (await inventory(this.#keeper)).templates.find((each) => each.id === job.id);
      if (template) hub.tell({ kind: 'template', template });
      return dataset;
    }
    const target = `${pool}/${job.name}`;
    return locks.holding([lockOf.volume(job.name)], async () => {
      await zfs.change('zfs', 'rename', dataset, target);
      await zfs.change('zfs', 'inherit', property.import, target);
      await this.#keeper.machine.awaitDevice(`${this.#keeper.machine.devices}/${target}`, true);
      hub.tell({ kind: 'volume', volume: await present(this.#keeper, job.name) });
      return target;
    });
  }
}
