import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { download } from './download.ts';
import { ZvolError } from './errors.ts';
import type { Filling, Task } from './filling.ts';
import type { ImportJob } from './jobs.ts';
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

  async fromAddress(task: Task, url: string): Promise<void> {
    const { policy, stallAfter, retryPause: pause = 1000 } = this.#options;
    task.phase('downloading', 0);
    const over = new AbortController();
    const signal = AbortSignal.any([task.signal, over.signal]);
    try {
      const { total, bytes } = await download(url, { policy, signal, stallAfter, pause });
      await this.fromStream(task, bytes, total);
    } finally {
      // What was refused by its beginning is not sent any further.
      over.abort();
    }
  }

  /**
   * Raw content goes straight to the zvol if its size is known, or that of what it becomes; all else has to lie somewhere
   * first.
   * @param total bytes that there are, if that is known.
   */
  async fromStream(task: Task, source: AsyncIterable<Buffer>, total: number | undefined): Promise<void> {
    const { job, signal, phase } = task;
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
    else if (size !== undefined) return this.#pour(task, bytes, { size, whole: total !== undefined });
    const path = join(this.#options.spoolFolder, job.id);
    const progress = phase('downloading', total ?? 0);
    try {
      const sha256 = await spool(bytes, path, { total, largest, signal, progress });
      await this.#fromFile(task, path, sha256);
    } finally {
      await rm(path, { force: true });
    }
  }

  fromFile(task: Task, path: string): Promise<void> {
    return this.#fromFile(task, path, undefined);
  }

  /** @param sha256 of the file, if it is known. */
  async #fromFile(task: Task, path: string, sha256: string | undefined): Promise<void> {
    const file = await lookAtFile(path);
    if (sha256 !== undefined) checkSum(task.job, sha256);
    if (file.format === 'qcow2') return this.#fromQcow2(task, file, sha256);
    await this.#pour(task, readFrom(path, task.signal), { size: file.size, whole: true });
  }

  /** @param size bytes that there are; at most, if they need not be the whole of it */
  async #pour(
    task: Task,
    source: AsyncIterable<Buffer>,
    { size, whole }: { readonly size: number; readonly whole: boolean },
  ): Promise<void> {
    const { job, signal, phase } = task;
    await this.#filling.fill(task, size, async (device, room) => {
      const progress = phase('writing', size);
      const watch = new RoomWatch(this.#keeper);
      const admit: SinkOptions['admit'] = (written, flush) => watch.wrote(written, flush);
      const { bytes, sha256 } = await pour(source, device, { room, signal, progress, admit });
      if (whole && bytes < size)
        throw new ZvolError('DATA_LOSS', `the source ended after ${bytes} of ${size} bytes`);
      checkSum(job, sha256);
    });
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

function checkSum({ sha256 }: ImportJob, found: string): void {
  if (sha256 !== '' && sha256 !== found)
    throw new ZvolError('DATA_LOSS', `the source has the checksum ${found}, and ${sha256} was wanted`);
}
