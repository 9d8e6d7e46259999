import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { Content } from './content.ts';
import { discard } from './discard.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { isOfExport } from './export.ts';
import { Filling, type Task } from './filling.ts';
import { hasEnded, type ImportJob, type ImportTarget, Journal } from './jobs.ts';
import { idFor, inventory, type Keeper } from './keeper.ts';
import { alignSize, checkBlockSize, checkName, defaultBlockSize } from './names.ts';
import { allowedPath, allowedUrl, checkSource, type Policy } from './policy.ts';
import { outOfSpace } from './sink.ts';
import { unlessStalled } from './stall.ts';
import { Turns } from './turns.ts';

export interface ImportsOptions {
  readonly command: Command;
  readonly policy: Policy;
  /** A folder of the daemon's own: journal and temporary files. */
  readonly folder: string;
  /** Imports at once; the others wait. */
  readonly atOnce: number;
  /** Milliseconds without a byte after which a client or a server is given up; a minute unless told. */
  readonly stallAfter?: number;
  /** Milliseconds before a server that failed is asked again; a second unless told. */
  readonly retryPause?: number;
  /** For what nobody is there to be told. */
  readonly report?: (words: string) => void;
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

type Work = (task: Task) => Promise<void>;

/** Takes disks in: each import fills a zvol of its own, which becomes a template or a volume at the end, or goes. */
export class Imports {
  readonly #keeper: Keeper;
  readonly #options: ImportsOptions;
  readonly #journal: Journal;
  readonly #content: Content;
  readonly #turns: Turns;
  readonly #running = new Map<string, Running>();
  /** Milliseconds without a byte after which somebody who sends is given up. */
  readonly stallAfter: number;

  constructor(keeper: Keeper, options: ImportsOptions) {
    const { command, policy, folder, atOnce, stallAfter = 60_000, retryPause } = options;
    this.#keeper = keeper;
    this.#options = options;
    this.stallAfter = stallAfter;
    this.#journal = new Journal(join(folder, 'imports'));
    this.#turns = new Turns(atOnce);
    const spoolFolder = join(folder, 'spool');
    const filling = new Filling(keeper, policy.largest, (words) => options.report?.(words));
    this.#content = new Content(keeper, filling, { command, policy, spoolFolder, stallAfter, retryPause });
  }

  /**
   * Tidies up after a daemon that ended in the middle: its imports have failed, and what they made goes.
   * @returns what was done, in words. @throws ZvolError `UNAVAILABLE` if the pool can't be asked; to be called again then
   */
  async recover(): Promise<string[]> {
    const { volumes, templates, unfinished } = await inventory(this.#keeper);
    const done: string[] = [];
    for (const job of this.#journal.all()) {
      if (hasEnded(job) || this.#running.has(job.id)) continue;
      // The pool knows better than a journal that was cut off.
      const whole = [...volumes, ...templates].some(({ id, name }) => id === job.id && name === job.name);
      this.#settle(job, whole ? { state: 'completed' } : failed(cutOff('zvold ended in the middle of it')));
      done.push(`the import ${job.id} of "${job.name}" ${whole ? 'was through' : 'was cut off'}`);
    }
    await this.#clearSpool();
    // By id, as one that is almost through has the name of its volume already; the pool may have come back in the middle of what
    // goes on.
    for (const { dataset, id } of unfinished) {
      if (this.#running.has(id) || this.#keeper.atWork.has(dataset) || isOfExport(this.#keeper, dataset))
        continue;
      await discard(this.#keeper, dataset);
      done.push(`the unfinished ${dataset} was destroyed`);
    }
    return done;
  }

  async #clearSpool(): Promise<void> {
    const folder = join(this.#options.folder, 'spool');
    const names = await readdir(folder).catch(() => []);
    for (const name of names)
      if (!this.#running.has(name)) await rm(join(folder, name), { recursive: true, force: true });
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
    checkSource(source);
    const isAddress = /^[a-z][a-z0-9+.-]*:\/\//i.test(source);
    const place = isAddress ? allowedUrl(policy, source).href : await allowedPath(policy, source);
    const { job } = await this.#begin(request, source, (task) =>
      isAddress ? this.#content.fromAddress(task, place) : this.#content.fromFile(task, place),
    );
    return job;
  }

  /**
   * Imports what a client sends.
   * @param gone aborted when the client goes away, which ends the import, whether its turn has come or not.
   * @returns the import, which has ended
   */
  async upload(request: ImportRequest, bytes: AsyncIterable<Buffer>, gone?: AbortSignal): Promise<ImportJob> {
    const { job, controller } = await this.#begin(request, 'upload', (task) => {
      const patience = { after: this.stallAfter, signal: task.signal, who: 'the client' };
      return this.#content.fromStream(task, unlessStalled(bytes, patience), undefined);
    });
    // One that another request had begun goes on without this one's client.
    const leave = (): void => controller?.abort(cancelled('its client went away'));
    if (gone?.aborted) leave();
    gone?.addEventListener('abort', leave, { once: true });
    await this.#running.get(job.id)?.ended;
    gone?.removeEventListener('abort', leave);
    return this.get(job.id);
  }

  /** Ends an import, and waits until what it made is gone. @returns false if it had ended */
  async cancel(id: string): Promise<boolean> {
    const job = this.get(id);
    const running = this.#running.get(id);
    if (hasEnded(job) || !running) return false;
    running.controller.abort(cancelled(''));
    await running.ended;
    return this.get(id).state === 'cancelled';
  }

  /** Ends all of them, for the end of the daemon. */
  async close(): Promise<void> {
    for (const { controller } of this.#running.values())
      controller.abort(cutOff('zvold was ended in the middle of it'));
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  /** @returns the import, and what ends it, if this request is the one that it began with */
  async #begin(
    request: ImportRequest,
    source: string,
    work: Work,
  ): Promise<{ readonly job: ImportJob; readonly controller?: AbortController }> {
    const job = jobOf(this.#keeper, request, source);
    const all = await inventory(this.#keeper);
    // From here to the journal nobody else comes in between.
    const known = this.#journal.get(job.id);
    if (known && known.name === job.name && known.target === job.target && known.source === source)
      return { job: known };
    if (known) throw new ZvolError('ALREADY_EXISTS', `the import ${job.id} is that of "${known.name}"`);
    this.#refuseTaken(job, job.target === 'template' ? all.templates : all.volumes);
    this.#journal.put(job);
    this.#keeper.hub.tell({ kind: 'import', job });
    const controller = new AbortController();
    const ended = this.#run(job, controller.signal, work).finally(() => this.#running.delete(job.id));
    this.#running.set(job.id, { controller, ended });
    return { job, controller };
  }

  /** @throws ZvolError `ALREADY_EXISTS` for a name or an id that something has, or a name that another import is at */
  #refuseTaken(
    { id, name, target }: ImportJob,
    present: readonly { readonly id: string; readonly name: string }[],
  ): void {
    const taken = present.find((each) => each.name === name || each.id === id);
    if (taken)
      throw new ZvolError(
        'ALREADY_EXISTS',
        taken.name === name
          ? `there is a ${target} "${name}" already`
          : `the ${target} "${taken.name}" has the id ${id}`,
      );
    const other = this.list(false).find((each) => each.name === name && each.target === target);
    if (other) throw new ZvolError('ALREADY_EXISTS', `the import ${other.id} makes a ${target} "${name}"`);
  }

  /** Never fails itself: what went wrong is the import's. */
  async #run(job: ImportJob, signal: AbortSignal, work: Work): Promise<void> {
    try {
      const leave = await this.#turns.take(signal);
      try {
        await work({ job, signal, phase: (state, total) => this.#phase(job.id, state, total) });
      } finally {
        leave();
      }
      this.#settle(this.get(job.id), { state: 'completed' });
    } catch (error) {
      const reason: unknown = signal.aborted ? signal.reason : error;
      this.#settle(this.get(job.id), failed(outOfSpace(reason) ?? reason));
    }
  }

  /** Its end is known here even where it can't be written; the pool tells the next daemon how it was. */
  #settle(job: ImportJob, end: Partial<ImportJob>): void {
    const ended = { ...job, ...end, completed: Date.now() };
    try {
      this.#journal.put(ended);
    } catch (error) {
      this.#journal.note(ended);
      this.#options.report?.(`how the import ${job.id} ended is not kept: ${wordsOf(error)}`);
    }
    this.#keeper.hub.tell({ kind: 'import', job: ended });
  }

  #phase(id: string, state: ImportJob['state'], total: number): (done: number) => void {
    const job = { ...this.get(id), state, done: 0, total };
    this.#journal.note(job);
    this.#keeper.hub.tell({ kind: 'import', job });
    let told = performance.now();
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

const cancelled = (why: string): ZvolError => new ZvolError('CANCELLED', why);
const cutOff = (why: string): ZvolError => new ZvolError('ABORTED', why);

/** How an import ended that did not come to its end. */
function failed(error: unknown): Partial<ImportJob> {
  const code = error instanceof ZvolError ? error.code : 'INTERNAL';
  return { state: code === 'CANCELLED' ? 'cancelled' : 'failed', error: wordsOf(error), code };
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
