import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Asked } from './asked.ts';
import type { Command } from './command.ts';
import { Content } from './content.ts';
import { discard, discardAll } from './discard.ts';
import { cancelled, cutOff, failed, Left } from './ends.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { isOfExport } from './export.ts';
import { Filling, type Task } from './filling.ts';
import { ownFolder } from './inventory.ts';
import { hasEnded, type ImportJob } from './jobs.ts';
import { isSuspended, Suspended, type Kept } from './kept.ts';
import { inventory, requirePool, type Keeper } from './keeper.ts';
import type { Zvol } from './model.ts';
import { alignSize } from './names.ts';
import { allowedPath, allowedUrl, checkSource, type Policy } from './policy.ts';
import { Records } from './records.ts';
import { differenceOf, isAddress, jobOf, type ImportRequest } from './request.ts';
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

interface Running {
  readonly controller: AbortController;
  /** Gives what of it is still there, in words; empty if nothing is that should not. */
  readonly ended: Promise<string>;
  /** A later daemon can go on with it. */
  readonly outlives: boolean;
}

type Work = (task: Task) => Promise<void>;

/** Milliseconds after which it is looked whether an import that does not end hangs on its pool. */
const hangPause = 1_000;

const leftBy = (error: unknown): string => (error instanceof Left ? error.left : '');

/** Takes disks in: each import fills a zvol of its own, which becomes a template or a volume at the end, or goes. */
export class Imports {
  readonly #keeper: Keeper;
  readonly #options: ImportsOptions;
  readonly #records: Records;
  readonly #content: Content;
  readonly #turns: Turns;
  readonly #running = new Map<string, Running>();
  readonly #asked = new Asked();
  /** Milliseconds without a byte after which somebody who sends is given up. */
  readonly stallAfter: number;

  constructor(keeper: Keeper, options: ImportsOptions) {
    const { command, policy, folder, atOnce, stallAfter = 60_000, retryPause } = options;
    this.#keeper = keeper;
    this.#options = options;
    this.stallAfter = stallAfter;
    this.#turns = new Turns(atOnce);
    const spoolFolder = join(folder, 'spool');
    const report = (words: string): void => options.report?.(words);
    this.#records = new Records(join(folder, 'imports'), keeper.hub, report);
    const filling = new Filling(keeper, policy.largest, report);
    const how = { command, policy, spoolFolder, stallAfter, retryPause, report };
    this.#content = new Content(keeper, filling, how);
  }

  /**
   * Tidies up after a daemon that ended in the middle: its downloads are gone on with; its other imports have failed, and what they
   * made goes.
   * @param tell told what was done, in words. @throws ZvolError why not all of it could be; to be called again then
   */
  async recover(tell: (words: string) => void): Promise<void> {
    const { volumes, templates, unfinished } = await inventory(this.#keeper);
    for (const job of this.#records.all()) {
      if (hasEnded(job) || this.#running.has(job.id)) continue;
      // The pool knows better than a journal that was cut off.
      const whole = [...volumes, ...templates].some(({ id, name }) => id === job.id && name === job.name);
      if (!whole && isAddress(job.source)) {
        tell(this.#goOn(job, unfinished));
        continue;
      }
      this.#records.settle(
        job,
        whole ? { state: 'completed' } : failed(cutOff('zvold ended in the middle of it')),
      );
      tell(`the import ${job.id} of "${job.name}" ${whole ? 'was through' : 'was cut off'}`);
    }
    await this.#clearSpool();
    const left = await this.#leftOf(unfinished);
    await discardAll(
      this.#keeper,
      left.map(({ dataset }) => [dataset, `the unfinished ${dataset} was destroyed`]),
      tell,
    );
  }

  /** What of it is nobody's. */
  async #leftOf(unfinished: readonly Zvol[]): Promise<readonly Zvol[]> {
    // By id, as one that is almost through has the name of its volume already; the pool may have come back in the middle of what
    // goes on.
    const isNobodys = (zvol: Zvol): boolean =>
      !this.#running.has(zvol.id) &&
      !this.#keeper.atWork.has(zvol.dataset) &&
      !isOfExport(this.#keeper, zvol);
    const idle = new Set(unfinished.filter(isNobodys).map(({ id }) => id));
    if (idle.size === 0) return [];
    // Asked again, since what goes on may have come to its end while the pool was asked: what nobody was at before stays as it is.
    const now = await inventory(this.#keeper);
    return now.unfinished.filter((zvol) => idle.has(zvol.id) && isNobodys(zvol));
  }

  /** @param unfinished what there is in the pool. @returns what is done, in words */
  #goOn(job: ImportJob, unfinished: readonly Zvol[]): string {
    // Asked again when its turn comes: others had theirs meanwhile.
    const left = async (): Promise<Zvol | undefined> =>
      (await inventory(this.#keeper)).unfinished.find(({ id }) => id === job.id);
    const work: Work = async (task) => {
      const zvol = await left();
      const kept = this.#usableOf(job, zvol);
      if (!kept) task.forget();
      if (zvol && kept?.place !== 'zvol') await discard(this.#keeper, zvol.dataset);
      await this.#content.fromAddress(task, job.source, kept);
    };
    this.#launch(job, work, async () => {
      const zvol = await left();
      if (zvol) await discard(this.#keeper, zvol.dataset);
      await rm(join(this.#options.folder, 'spool', job.id), { force: true });
    });
    const zvol = unfinished.find(({ id }) => id === job.id);
    const kept = this.#usableOf(job, zvol);
    const what = `the import ${job.id} of "${job.name}" was cut off and`;
    return kept
      ? `${what} goes on: ${kept.bytes} of its ${kept.total} bytes are safe`
      : `${what} begins anew: nothing of it was safe`;
  }

  /** What was kept of a download, if it can be gone on with; a zvol that has a snapshot, or a name, was on its way further. */
  #usableOf({ id, size = 0, blockSize, kept }: ImportJob, zvol: Zvol | undefined): Kept | undefined {
    if (kept?.place !== 'zvol') return kept;
    const isFilled =
      zvol?.dataset === `${this.#keeper.pool}/${ownFolder}/${id}` &&
      zvol.snapshots.length === 0 &&
      zvol.size === alignSize(Math.max(size, kept.total), blockSize);
    return isFilled ? kept : undefined;
  }

  async #clearSpool(): Promise<void> {
    const folder = join(this.#options.folder, 'spool');
    const names = await readdir(folder).catch(() => []);
    for (const name of names)
      if (!this.#running.has(name)) await rm(join(folder, name), { recursive: true, force: true });
  }

  get(id: string): ImportJob {
    return this.#records.get(id);
  }

  list(includeEnded: boolean): ImportJob[] {
    return this.#records.all().filter((job) => includeEnded || !hasEnded(job));
  }

  /**
   * Begins an import of a file or an address. The same request with the same id again gives the same import.
   * @param gone aborted when who asks goes away: what has not begun by then does not begin. What has goes on, until it is cancelled
   *   by its id.
   */
  async start(request: ImportRequest, source: string, gone?: AbortSignal): Promise<ImportJob> {
    const { policy } = this.#options;
    return this.#asked.during(request.id, gone, async (off) => {
      checkSource(source);
      const isUrl = isAddress(source);
      const place = isUrl ? allowedUrl(policy, source).href : await allowedPath(policy, source);
      const work: Work = (task) =>
        isUrl ? this.#content.fromAddress(task, place, undefined) : this.#content.fromFile(task, place);
      return (await this.#begin(request, source, work, off)).job;
    });
  }

  /**
   * Imports what a client sends.
   * @param gone aborted when the client goes away, which ends the import, whether its turn has come or not.
   * @returns the import, which has ended
   */
  async upload(request: ImportRequest, bytes: AsyncIterable<Buffer>, gone?: AbortSignal): Promise<ImportJob> {
    const { job, controller } = await this.#begin(request, 'upload', (task) => {
      const patience = { after: this.stallAfter, signal: task.signal, idle: 'nothing came from the client' };
      return this.#content.fromStream(task, unlessStalled(bytes, patience));
    });
    // One that another request had begun goes on without this one's client.
    const leave = (): void => controller?.abort(cancelled('its client went away'));
    if (gone?.aborted) leave();
    gone?.addEventListener('abort', leave, { once: true });
    await this.#running.get(job.id)?.ended;
    gone?.removeEventListener('abort', leave);
    return this.get(job.id);
  }

  /**
   * Ends an import, and waits until what it made is gone.
   * @returns false if it had ended. @throws ZvolError `FAILED_PRECONDITION` if it is cancelled, and something of it stays; `UNAVAILABLE`
   *   if it hangs on the pool, and ends when that is back
   */
  async cancel(id: string): Promise<boolean> {
    if (!this.#records.find(id) && this.#asked.callOff(id)) return true;
    const job = this.get(id);
    if (hasEnded(job)) return false;
    const running = this.#running.get(id);
    // An earlier daemon's, and the pool was not there yet: what it left goes when that comes.
    if (!running) {
      this.#records.settle(job, failed(cancelled('')));
      return true;
    }
    running.controller.abort(cancelled(''));
    const left = await this.#endOf(id, running);
    if (this.get(id).state !== 'cancelled') return false;
    if (left !== '') throw new ZvolError('FAILED_PRECONDITION', `the import ${id} is cancelled, but ${left}`);
    return true;
  }

  async #endOf(id: string, { ended }: Running): Promise<string> {
    for (;;) {
      const left = await Promise.race([ended, delay(hangPause, undefined, { ref: false })]);
      if (left !== undefined) return left;
      await requirePool(this.#keeper).catch((error: unknown) => {
        throw new ZvolError(
          'UNAVAILABLE',
          `the import ${id} ends as soon as it can: ${wordsOf(error)}`,
          error,
        );
      });
    }
  }

  /** Ends all of them, for the end of the daemon; downloads are left to the next one. */
  async close(): Promise<void> {
    for (const { controller, outlives } of this.#running.values())
      controller.abort(outlives ? new Suspended() : cutOff('zvold was ended in the middle of it'));
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  /** @returns the import, and what ends it, if this request is the one that it began with */
  async #begin(
    request: ImportRequest,
    source: string,
    work: Work,
    off?: AbortSignal,
  ): Promise<{ readonly job: ImportJob; readonly controller?: AbortController }> {
    const job = jobOf(this.#keeper, request, source);
    const all = await inventory(this.#keeper);
    if (off?.aborted) throw cancelled('it was called off before it began');
    // From here to the journal nobody else comes in between.
    const known = this.#records.find(job.id);
    if (known) {
      const other = differenceOf(known, job);
      if (other === undefined) return { job: known };
      throw new ZvolError('ALREADY_EXISTS', `there is an import ${job.id} already, ${other}`);
    }
    this.#records.refuseTaken(job, job.target === 'template' ? all.templates : all.volumes);
    this.#records.begin(job);
    return { job, controller: this.#launch(job, work) };
  }

  /** @param never what is to be done if it is ended before its turn comes */
  #launch(job: ImportJob, work: Work, never: () => Promise<void> = async () => {}): AbortController {
    const controller = new AbortController();
    const ended = this.#run(job, controller.signal, work, never).finally(() => this.#running.delete(job.id));
    this.#running.set(job.id, { controller, ended, outlives: isAddress(job.source) });
    return controller;
  }

  /** Never fails itself: what went wrong is the import's. */
  async #run(job: ImportJob, signal: AbortSignal, work: Work, never: () => Promise<void>): Promise<string> {
    let begun = false;
    try {
      const leave = await this.#turns.take(signal);
      begun = true;
      try {
        await work({
          job,
          signal,
          phase: (state, total) => this.#records.phase(job.id, state, total),
          keep: (kept) => this.#records.keep(job.id, kept),
          forget: () => this.#records.forget(job.id),
        });
      } finally {
        leave();
      }
      this.#records.settle(this.get(job.id), { state: 'completed' });
      return '';
    } catch (error) {
      if (isSuspended(signal)) return '';
      const left = begun ? leftBy(error) : await never().then(() => '', wordsOf);
      if (!begun && left !== '') this.#options.report?.(left);
      const reason: unknown = signal.aborted ? signal.reason : error;
      this.#records.settle(this.get(job.id), failed(outOfSpace(reason) ?? reason, left));
      return left;
    }
  }
}
