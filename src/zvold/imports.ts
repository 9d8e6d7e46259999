import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { download } from './download.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { ownFolder, property } from './inventory.ts';
import { hasEnded, type ImportJob, type ImportTarget, Journal } from './jobs.ts';
import { idFor, inventory, lockOf, requirePool, type Keeper } from './keeper.ts';
import { alignSize, checkBlockSize, checkName, defaultBlockSize } from './names.ts';
import { allowedPath, allowedUrl, type Policy } from './policy.ts';
import { checkQcow2, isQcow2 } from './qcow2-header.ts';
import { outOfSpace, pour } from './sink.ts';
import { lookAtFile, peek, sha256OfFile, spool, type LocalFile } from './source.ts';
import { present } from './volumes.ts';

export interface ImportsOptions {
  readonly command: Command;
  readonly policy: Policy;
  /** A folder of the daemon's own: journal and temporary files. */
  readonly folder: string;
  /** Imports at once; the others wait. */
  readonly atOnce: number;
}

/** What is imported as what. */
export interface ImportRequest {
  readonly name: string;
  readonly target: ImportTarget;
  readonly size?: number | undefined;
  readonly blockSize?: number | undefined;
  readonly sha256: string;
  readonly id: string;
}

/** Milliseconds for qemu-img: the time for the largest disk that is taken. */
const convertDeadline = 24 * 3_600_000;

interface Running {
  readonly controller: AbortController;
  readonly ended: Promise<void>;
}

/** Takes disks in: each import fills a zvol of its own, which becomes a template or a volume at the end, or goes. */
export class Imports {
  readonly #keeper: Keeper;
  readonly #options: ImportsOptions;
  readonly #journal: Journal;
  readonly #running = new Map<string, Running>();
  readonly #waiting: (() => void)[] = [];
  #busy = 0;

  constructor(keeper: Keeper, options: ImportsOptions) {
    this.#keeper = keeper;
    this.#options = options;
    this.#journal = new Journal(join(options.folder, 'imports'));
  }

  /**
   * Tidies up after a daemon that ended in the middle: its imports have failed, and what they made goes.
   * @returns what was done, in words. @throws ZvolError `UNAVAILABLE` if the pool can't be asked; to be called again then
   */
  async recover(): Promise<string[]> {
    const done: string[] = [];
    const { volumes, templates, unfinished } = await inventory(this.#keeper);
    for (const job of this.#journal.all()) {
      if (hasEnded(job) || this.#running.has(job.id)) continue;
      // The pool knows better than a journal that was cut off.
      const whole = [...volumes, ...templates].some(({ id, name }) => id === job.id && name === job.name);
      const end = whole
        ? ({ state: 'completed' } as const)
        : ({ state: 'failed', error: 'zvold ended in the middle of it' } as const);
      this.#journal.put({ ...job, ...end, completed: Date.now() });
      done.push(`the import ${job.id} of "${job.name}" ${whole ? 'was through' : 'was cut off'}`);
    }
    await rm(join(this.#options.folder, 'spool'), { recursive: true, force: true });
    for (const { dataset, id } of unfinished) {
      // The pool may have come back in the middle of what goes on.
      if (this.#running.has(id) || this.#keeper.atWork.has(dataset)) continue;
      await this.#keeper.zfs.change('zfs', 'destroy', '-r', dataset);
      done.push(`the unfinished ${dataset} was destroyed`);
    }
    return done;
  }

  get(id: string): ImportJob {
    const job = this.#journal.get(id);
    if (job) return job;
    throw new ZvolError('NOT_FOUND', `there is no import "${id}"`);
  }

  list(includeEnded: boolean): ImportJob[] {
    return this.#journal.all().filter((job) => includeEnded || !hasEnded(job));
  }

  /** Begins an import of a file or an address. The same request with the same id again gives the same import. */
  async start(request: ImportRequest, source: string): Promise<ImportJob> {
    const { policy } = this.#options;
    const isAddress = /^[a-z][a-z0-9+.-]*:\/\//i.test(source);
    const place = isAddress ? allowedUrl(policy, source).href : await allowedPath(policy, source);
    return this.#begin(request, source, (job, signal) =>
      isAddress ? this.#fromAddress(job, place, signal) : this.#fromFile(job, place, signal),
    );
  }

  /** Imports what a client sends. @returns the import, which has ended */
  async upload(request: ImportRequest, bytes: AsyncIterable<Buffer>): Promise<ImportJob> {
    const { id } = await this.#begin(request, 'upload', (job, signal) =>
      this.#fromStream(job, bytes, undefined, signal),
    );
    await this.#running.get(id)?.ended;
    return this.get(id);
  }

  /** Ends an import, and waits until what it made is gone. @returns false if it had ended */
  async cancel(id: string): Promise<boolean> {
    const job = this.get(id);
    const running = this.#running.get(id);
    if (hasEnded(job) || !running) return false;
    running.controller.abort();
    await running.ended;
    return this.get(id).state === 'cancelled';
  }

  /** Ends all of them, for the end of the daemon. */
  async close(): Promise<void> {
    for (const { controller } of this.#running.values()) controller.abort();
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  async #begin(
    request: ImportRequest,
    source: string,
    work: (job: ImportJob, signal: AbortSignal) => Promise<void>,
  ): Promise<ImportJob> {
    const job = jobOf(this.#keeper, request, source);
    await requirePool(this.#keeper);
    const known = this.#journal.get(job.id);
    if (known && known.name === job.name && known.target === job.target && known.source === source)
      return known;
    if (known) throw new ZvolError('ALREADY_EXISTS', `the import ${job.id} is that of "${known.name}"`);
    await this.#refuseTaken(job);
    this.#journal.put(job);
    this.#keeper.hub.tell({ kind: 'import', job });
    const controller = new AbortController();
    const ended = this.#run(job, controller.signal, work).finally(() => this.#running.delete(job.id));
    this.#running.set(job.id, { controller, ended });
    return job;
  }

  /** @throws ZvolError `ALREADY_EXISTS` for a name that something has, or that another import is at */
  async #refuseTaken({ name, target }: ImportJob): Promise<void> {
    const all = await inventory(this.#keeper);
    const taken = (target === 'template' ? all.templates : all.volumes).some((each) => each.name === name);
    if (taken) throw new ZvolError('ALREADY_EXISTS', `there is a ${target} "${name}" already`);
    const other = this.list(false).find((each) => each.name === name && each.target === target);
    if (other) throw new ZvolError('ALREADY_EXISTS', `the import ${other.id} makes a ${target} "${name}"`);
  }

  async #run(
    job: ImportJob,
    signal: AbortSignal,
    work: (job: ImportJob, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    try {
      await this.#turn(signal);
      try {
        await work(job, signal);
      } finally {
        this.#busy -= 1;
        this.#waiting.shift()?.();
      }
      this.#end(job.id, { state: 'completed' });
    } catch (error) {
      if (signal.aborted) this.#end(job.id, { state: 'cancelled' });
      else this.#end(job.id, { state: 'failed', error: wordsOf(outOfSpace(error) ?? error) });
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    while (this.#busy >= this.#options.atOnce) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      signal.throwIfAborted();
    }
    this.#busy += 1;
  }

  #end(id: string, change: Partial<ImportJob>): void {
    const job = { ...this.get(id), ...change, completed: Date.now() };
    this.#journal.put(job);
    this.#keeper.hub.tell({ kind: 'import', job });
  }

  #phase(id: string, state: ImportJob['state'], total: number): (done: number) => void {
    const job = { ...this.get(id), state, done: 0, total };
    this.#journal.put(job);
    this.#keeper.hub.tell({ kind: 'import', job });
    let told = 0;
    return (done) => {
      const now = { ...this.get(id), done };
      this.#journal.note(now);
      // As often as anybody can look.
      if (performance.now() - told < 200) return;
      told = performance.now();
      this.#keeper.hub.tell({ kind: 'import', job: now });
    };
  }

  async #fromAddress(job: ImportJob, url: string, signal: AbortSignal): Promise<void> {
    const { total, bytes } = await download(url, { policy: this.#options.policy, signal });
    await this.#fromStream(job, bytes, total, signal);
  }

  /** Raw content whose size is known goes straight to the zvol; all else has to lie somewhere first. */
  async #fromStream(
    job: ImportJob,
    source: AsyncIterable<Buffer>,
    total: number | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { start, bytes } = await peek(source);
    if (isQcow2(start)) checkQcow2(start);
    else if (total !== undefined)
      return this.#fill(job, total, signal, async (device, room) => {
        const { bytes: came, sha256 } = await pour(bytes, device, {
          room,
          signal,
          progress: this.#phase(job.id, 'writing', total),
        });
        if (came < total)
          throw new ZvolError('DATA_LOSS', `the source ended after ${came} of ${total} bytes`);
        checkSum(job, sha256);
      });
    const path = join(this.#options.folder, 'spool', job.id);
    const progress = this.#phase(job.id, 'downloading', total ?? 0);
    try {
      await spool(bytes, path, { total, largest: this.#options.policy.largest, signal, progress });
      await this.#fromFile(job, path, signal);
    } finally {
      await rm(path, { force: true });
    }
  }

  async #fromFile(job: ImportJob, path: string, signal: AbortSignal): Promise<void> {
    const file = await lookAtFile(path);
    if (job.sha256 !== '') checkSum(job, await sha256OfFile(path, signal));
    await this.#fill(job, file.size, signal, (device, room) =>
      this.#convert(job, file, device, room, signal),
    );
  }

  async #convert(
    job: ImportJob,
    file: LocalFile,
    device: string,
    room: number,
    signal: AbortSignal,
  ): Promise<void> {
    if (file.format === 'raw') {
      const progress = this.#phase(job.id, 'writing', file.size);
      await pour(
        createReadStream(file.path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>,
        device,
        { room, signal, progress },
      );
      return;
    }
    const progress = this.#phase(job.id, 'converting', file.size);
    // Whatever the header said when it was looked at: no other file is opened.
    const source = JSON.stringify({
      driver: 'qcow2',
      backing: null,
      file: { driver: 'file', filename: file.path, locking: 'off' },
    });
    const { exitCode, stderr } = await this.#options.command(
      ['qemu-img', 'convert', '-p', '-n', '-W', '--target-is-zero', '-O', 'raw', `json:${source}`, device],
      {
        deadline: convertDeadline,
        signal,
        onOutput: (text) => {
          const percent = /\((\d+(?:\.\d+)?)\/100%\)\s*$/.exec(text)?.[1];
          if (percent !== undefined) progress(Math.round((Number(percent) / 100) * file.size));
        },
      },
    );
    if (exitCode === 0) return;
    const words = stderr.trim().split('\n').at(-1) ?? '';
    if (/No space left|Disk quota/.test(words))
      throw new ZvolError('RESOURCE_EXHAUSTED', 'the pool was full before all of it was written');
    throw new ZvolError('INVALID_ARGUMENT', `the qcow2 can't be read: ${words}`);
  }

  /** Makes a zvol, has it filled, and makes of it what was asked for; whatever fails takes the zvol away again. */
  async #fill(
    job: ImportJob,
    content: number,
    signal: AbortSignal,
    work: (device: string, room: number) => Promise<void>,
  ): Promise<void> {
    const { zfs, machine, pool } = this.#keeper;
    const { largest } = this.#options.policy;
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

function jobOf({ pool }: Keeper, request: ImportRequest, source: string): ImportJob {
  const { name, target, sha256 } = request;
  checkName(`the ${target}`, name, `${pool}/`);
  const blockSize = request.blockSize ?? defaultBlockSize;
  checkBlockSize(blockSize);
  if (sha256 !== '' && !/^[0-9a-f]{64}$/i.test(sha256))
    throw new ZvolError('INVALID_ARGUMENT', `"${sha256}" is no SHA-256`);
  const size = request.size === undefined ? undefined : alignSize(request.size, blockSize);
  const begun = { state: 'pending', done: 0, total: 0, error: '', created: Date.now() } as const;
  return {
    id: idFor(request.id),
    name,
    target,
    source,
    size,
    blockSize,
    sha256: sha256.toLowerCase(),
    ...begun,
  };
}

function checkSum({ sha256 }: ImportJob, found: string): void {
  if (sha256 !== '' && sha256 !== found)
    throw new ZvolError('DATA_LOSS', `the source has the checksum ${found}, and ${sha256} was wanted`);
}
