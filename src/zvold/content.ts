import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { download, downloadRest } from './download.ts';
import { ZvolError } from './errors.ts';
import type { Filling, Task } from './filling.ts';
import type { ImportJob } from './jobs.ts';
import { isSuspended, StartOver, type Keep, type Kept } from './kept.ts';
import type { Keeper } from './keeper.ts';
import type { Policy } from './policy.ts';
import { checkQcow2, isQcow2 } from './qcow2-header.ts';
import { checkTables, tableBytes } from './qcow2-tables.ts';
import { RoomWatch } from './room.ts';
import { pour, type SinkOptions } from './sink.ts';
import { lookAtFile, peek, readFrom, sha256OfFile, spool, type LocalFile } from './source.ts';

export interface ContentOptions {
  readonly command: Command;
  readonly policy: Policy;
  /** For what has to be read here and there. */
  readonly spoolFolder: string;
  /** Milliseconds without a byte after which a server is given up. */
  readonly stallAfter: number;
  /** Milliseconds before a server is asked again; a second unless told. */
  readonly retryPause?: number | undefined;
  /** For what nobody is there to be told. */
  readonly report: (words: string) => void;
}

/** Content as it comes, and what is known of it beforehand. */
interface Incoming {
  /** Bytes that there are, if that is known. */
  readonly total: number | undefined;
  /** Bytes of it that are there already, and do not come any more. */
  readonly from?: number;
  /** Told what is safe, if a later daemon could go on with it. */
  readonly keep?: Keep | undefined;
}

type QcowFile = LocalFile & { readonly format: 'qcow2' };

/** Milliseconds for qemu-img: the time for the largest disk that is taken. */
const convertDeadline = 24 * 3_600_000;

/** Reads content wherever it comes from, and has it fill a zvol. */
export class Content {
  readonly #keeper: Keeper;
  readonly #filling: Filling;
  readonly #options: ContentOptions;

  constructor(keeper: Keeper, filling: Filling, options: ContentOptions) {
    this.#keeper = keeper;
    this.#filling = filling;
    this.#options = options;
  }

  /** @param kept what an earlier daemon has of it */
  async fromAddress(task: Task, url: string, kept: Kept | undefined): Promise<void> {
    const { policy, stallAfter, retryPause: pause = 1000 } = this.#options;
    const over = new AbortController();
    const options = { policy, signal: AbortSignal.any([task.signal, over.signal]), stallAfter, pause };
    try {
      if (kept && (await this.#goneOnWith(kept, task, downloadRest(url, kept, options)))) return;
      task.phase('downloading', 0);
      const { total, validator, bytes } = await download(url, options);
      const keep =
        total !== undefined && validator !== undefined ? keepingOf(task, { total, validator }) : undefined;
      await this.#fromStream(task, bytes, { total, keep });
    } finally {
      // What was refused by its beginning is not sent any further.
      over.abort();
    }
  }

  /** @returns false if what is kept is of no use; then nothing is left of it */
  async #goneOnWith(kept: Kept, task: Task, source: AsyncIterable<Buffer>): Promise<boolean> {
    const incoming = { total: kept.total, from: kept.bytes, keep: keepingOf(task, kept) };
    try {
      if (kept.place === 'file') await this.#spool(task, source, incoming);
      else await this.#pour(task, source, { ...incoming, size: kept.total, whole: true });
      return true;
    } catch (error) {
      if (!(error instanceof StartOver)) throw error;
      const { id, name } = task.job;
      this.#options.report(`the import ${id} of "${name}" begins anew: ${error.message}`);
      // Before anything new is there, which must not be taken for what was kept.
      task.forget();
      return false;
    }
  }

  fromStream(task: Task, source: AsyncIterable<Buffer>): Promise<void> {
    return this.#fromStream(task, source, { total: undefined });
  }

  /**
   * Raw content goes straight to the zvol if its size is known, or that of what it becomes; all else has to lie somewhere
   * first.
   */
  async #fromStream(task: Task, source: AsyncIterable<Buffer>, incoming: Incoming): Promise<void> {
    const { job } = task;
    const { total, keep } = incoming;
    const { largest } = this.#options.policy;
    if (total !== undefined && total > largest)
      throw new ZvolError(
        'RESOURCE_EXHAUSTED',
        `the source has ${total} bytes, more than the ${largest} that are taken`,
      );
    const { start, bytes } = await peek(source);
    if (start.length === 0) throw new ZvolError('INVALID_ARGUMENT', 'the source is empty');
    const size = total ?? job.size;
    // Before all of it has come.
    if (isQcow2(start)) this.#filling.sizeFor(job, checkQcow2(start).size);
    else if (size !== undefined) return this.#pour(task, bytes, { size, whole: total !== undefined, keep });
    await this.#spool(task, bytes, incoming);
  }

  async #spool(task: Task, source: AsyncIterable<Buffer>, { total, from, keep }: Incoming): Promise<void> {
    const { job, signal, phase } = task;
    const path = join(this.#options.spoolFolder, job.id);
    const progress = phase('downloading', total ?? 0);
    const { largest } = this.#options.policy;
    const safe = keep && ((bytes: number) => keep('file', bytes));
    const hashed = job.sha256 !== '';
    try {
      const sha256 = await spool(source, path, { total, largest, signal, progress, hashed, from, safe });
      await this.#fromFile(task, path, sha256);
    } finally {
      if (!isSuspended(signal)) await rm(path, { force: true });
    }
  }

  fromFile(task: Task, path: string): Promise<void> {
    return this.#fromFile(task, path, undefined);
  }

  /** @param sha256 of the file, if it is known. */
  async #fromFile(task: Task, path: string, sha256: string | undefined): Promise<void> {
    const file = await lookAtFile(path);
    checkSum(task.job, sha256);
    if (file.format === 'qcow2') return this.#fromQcow2(task, file, sha256);
    await this.#pour(task, readFrom(path, task.signal), { size: file.size, whole: true });
  }

  /** @param size bytes that there are; at most, if they need not be the whole of it. @param from bytes that the zvol has already */
  async #pour(
    task: Task,
    source: AsyncIterable<Buffer>,
    {
      size,
      whole,
      from = 0,
      keep,
    }: Pick<Incoming, 'from' | 'keep'> & { readonly size: number; readonly whole: boolean },
  ): Promise<void> {
    const { job, signal, phase } = task;
    const work = async (device: string, room: number): Promise<void> => {
      const progress = phase('writing', size);
      const watch = new RoomWatch(this.#keeper);
      const admit: SinkOptions['admit'] = (written, flush) => watch.wrote(written, flush);
      const safe = keep && ((bytes: number) => keep('zvol', bytes));
      const hashed = job.sha256 !== '';
      const options = { room, signal, progress, hashed, from, safe, admit };
      const { bytes, sha256 } = await pour(source, device, options);
      if (whole && bytes < size)
        throw new ZvolError('DATA_LOSS', `the source ended after ${bytes} of ${size} bytes`);
      checkSum(job, sha256);
    };
    await this.#filling.fill(task, size, work, from > 0);
  }

  /** One phase, whose bytes are those that are hashed, those of tables, and those of the content. */
  async #fromQcow2(task: Task, file: QcowFile, sha256: string | undefined): Promise<void> {
    const { job, signal, phase } = task;
    this.#filling.sizeFor(job, file.size);
    const hashed = job.sha256 !== '' && sha256 === undefined ? file.length : 0;
    const tables = tableBytes(file.header);
    const progress = phase('converting', hashed + tables + file.size);
    if (hashed > 0) checkSum(job, await sha256OfFile(file.path, signal, progress));
    const allocated = await this.#allocatedIn(file, signal, (done) => progress(hashed + done));
    await this.#filling.fill(task, file.size, async (device) => {
      let fraction = 0;
      const most = { most: allocated, done: () => fraction * allocated };
      await new RoomWatch(this.#keeper).during(signal, most, (ended) =>
        this.#convert(file, device, ended, (done) => {
          fraction = done;
          progress(hashed + tables + Math.round(done * file.size));
        }),
      );
      progress(hashed + tables + file.size);
    });
  }

  async #allocatedIn(
    { path, length, header }: QcowFile,
    signal: AbortSignal,
    progress: (done: number) => void,
  ): Promise<number> {
    const opened = await open(path, 'r');
    try {
      return await checkTables(opened, length, header, { signal, progress });
    } finally {
      await opened.close();
    }
  }

  async #convert(
    { path }: QcowFile,
    device: string,
    signal: AbortSignal,
    progress: (fraction: number) => void,
  ): Promise<void> {
    // Whatever the header said when it was looked at: no other file is opened.
    const source = JSON.stringify({
      driver: 'qcow2',
      backing: null,
      file: { driver: 'file', filename: path, locking: 'off' },
    });
    const { exitCode, stderr } = await this.#options.command(
      // Past the guest's memory: what waits there would be written to a pool that has no room left.
      [
        ...(['qemu-img', 'convert', '-p', '-n', '-W', '--target-is-zero', '-t', 'none'] as const),
        ...['-O', 'raw', `json:${source}`, device],
      ],
      {
        deadline: convertDeadline,
        signal,
        onOutput: (text) => {
          const percent = /\((\d+(?:\.\d+)?)\/100%\)\s*$/.exec(text)?.[1];
          if (percent !== undefined) progress(Number(percent) / 100);
        },
      },
    );
    if (exitCode === 0) return;
    const words = stderr.trim().split('\n').at(-1) ?? '';
    if (/No space left|Disk quota/.test(words))
      throw new ZvolError('RESOURCE_EXHAUSTED', 'the pool was full before all of it was written');
    throw new ZvolError('INVALID_ARGUMENT', `the qcow2 can't be read: ${words}`);
  }
}

function keepingOf({ keep }: Task, { total, validator }: Pick<Kept, 'total' | 'validator'>): Keep {
  return (place, bytes) => keep({ place, bytes, total, validator });
}

/** @param found undefined where nobody wanted to know */
function checkSum({ sha256 }: ImportJob, found: string | undefined): void {
  if (sha256 !== '' && found !== undefined && sha256 !== found)
    throw new ZvolError('DATA_LOSS', `the source has the checksum ${found}, and ${sha256} was wanted`);
}
