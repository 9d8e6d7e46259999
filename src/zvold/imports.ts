import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { Content, type Task } from './content.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { Filling } from './filling.ts';
import { hasEnded, type ImportJob, type ImportTarget, Journal } from './jobs.ts';
import { idFor, inventory, requirePool, type Keeper } from './keeper.ts';
import { alignSize, checkBlockSize, checkName, defaultBlockSize } from './names.ts';
import { allowedPath, allowedUrl, type Policy } from './policy.ts';
import { outOfSpace } from './sink.ts';

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

interface Running {
  readonly controller: AbortController;
  readonly ended: Promise<void>;
}

/** Takes disks in: each import fills a zvol of its own, which becomes a template or a volume at the end, or goes. */
export class Imports {
  readonly #keeper: Keeper;
  readonly #options: ImportsOptions;
  readonly #journal: Journal;
  readonly #content: Content;
  readonly #running = new Map<string, Running>();
  readonly #waiting: (() => void)[] = [];
  #busy = 0;

  constructor(keeper: Keeper, options: ImportsOptions) {
    this.#keeper = keeper;
    this.#options = options;
    this.#journal = new Journal(join(options.folder, 'imports'));
    const { command, policy, folder } = options;
    this.#content = new Content(new Filling(keeper, policy.largest), {
      command,
      policy,
      spoolFolder: join(folder, 'spool'),
    });
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
    for (const { dataset } of unfinished) {
      if ([...this.#running.keys()].some((id) => dataset.endsWith(`/${id}`))) continue;
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
    return this.#begin(request, source, (task) =>
      isAddress ? this.#content.fromAddress(task, place) : this.#content.fromFile(task, place),
    );
  }

  /** Imports what a client sends. @returns the import, which has ended */
  async upload(request: ImportRequest, bytes: AsyncIterable<Buffer>): Promise<ImportJob> {
    const { id } = await this.#begin(request, 'upload', (task) =>
      this.#content.fromStream(task, bytes, undefined),
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
    work: (task: Task) => Promise<void>,
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

  async #run(job: ImportJob, signal: AbortSignal, work: (task: Task) => Promise<void>): Promise<void> {
    try {
      await this.#turn(signal);
      try {
        await work({ job, signal, phase: (state, total) => this.#phase(job.id, state, total) });
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
