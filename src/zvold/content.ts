import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { download } from './download.ts';
import { ZvolError } from './errors.ts';
import type { Filling } from './filling.ts';
import type { ImportJob, ImportState } from './jobs.ts';
import type { Policy } from './policy.ts';
import { checkQcow2, isQcow2 } from './qcow2-header.ts';
import { pour } from './sink.ts';
import { lookAtFile, peek, sha256OfFile, spool, type LocalFile } from './source.ts';

/** An import, as those see it who do its work. */
export interface Task {
  readonly job: ImportJob;
  readonly signal: AbortSignal;
  /** Begins a phase of so many bytes, 0 where nobody knows; what it gives is told how many are done. */
  readonly phase: (state: ImportState, total: number) => (done: number) => void;
}

export interface ContentOptions {
  readonly command: Command;
  readonly policy: Policy;
  /** For what has to be read here and there. */
  readonly spoolFolder: string;
}

/** Milliseconds for qemu-img: the time for the largest disk that is taken. */
const convertDeadline = 24 * 3_600_000;

/** Reads content wherever it comes from, and has it fill a zvol. */
export class Content {
  readonly #filling: Filling;
  readonly #options: ContentOptions;

  constructor(filling: Filling, options: ContentOptions) {
    this.#filling = filling;
    this.#options = options;
  }

  async fromAddress(task: Task, url: string): Promise<void> {
    const { policy } = this.#options;
    const { total, bytes } = await download(url, { policy, signal: task.signal });
    await this.fromStream(task, bytes, total);
  }

  /** Raw content whose size is known goes straight to the zvol; all else has to lie somewhere first. */
  async fromStream(task: Task, source: AsyncIterable<Buffer>, total: number | undefined): Promise<void> {
    const { job, signal, phase } = task;
    const { start, bytes } = await peek(source);
    if (isQcow2(start)) checkQcow2(start);
    else if (total !== undefined)
      return this.#filling.fill(job, total, signal, async (device, room) => {
        const { bytes: came, sha256 } = await pour(bytes, device, {
          room,
          signal,
          progress: phase('writing', total),
        });
        if (came < total)
          throw new ZvolError('DATA_LOSS', `the source ended after ${came} of ${total} bytes`);
        checkSum(job, sha256);
      });
    const path = join(this.#options.spoolFolder, job.id);
    const progress = phase('downloading', total ?? 0);
    try {
      await spool(bytes, path, { total, largest: this.#options.policy.largest, signal, progress });
      await this.fromFile(task, path);
    } finally {
      await rm(path, { force: true });
    }
  }

  async fromFile(task: Task, path: string): Promise<void> {
    const { job, signal } = task;
    const file = await lookAtFile(path);
    if (job.sha256 !== '') checkSum(job, await sha256OfFile(path, signal));
    await this.#filling.fill(job, file.size, signal, (device, room) =>
      this.#convert(task, file, device, room),
    );
  }

  async #convert({ signal, phase }: Task, file: LocalFile, device: string, room: number): Promise<void> {
    if (file.format === 'raw') {
      const progress = phase('writing', file.size);
      await pour(
        createReadStream(file.path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>,
        device,
        { room, signal, progress },
      );
      return;
    }
    const progress = phase('converting', file.size);
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
}

function checkSum({ sha256 }: ImportJob, found: string): void {
  if (sha256 !== '' && sha256 !== found)
    throw new ZvolError('DATA_LOSS', `the source has the checksum ${found}, and ${sha256} was wanted`);
}
