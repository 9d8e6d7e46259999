import { wordsOf, ZvolError } from './errors.ts';
import type { Hub } from './hub.ts';
import { hasEnded, Journal, type ImportJob } from './jobs.ts';
import type { Kept } from './kept.ts';

/** What is known of imports: kept in their journal, and told to whoever watches. */
export class Records {
  readonly #journal: Journal;
  readonly #hub: Hub;
  readonly #report: (words: string) => void;

  /** @param folder of the journal. @throws errors of Node's own if that can't be read */
  constructor(folder: string, hub: Hub, report: (words: string) => void) {
    this.#journal = new Journal(folder, report);
    this.#hub = hub;
    this.#report = report;
  }

  /** Oldest first. */
  all(): ImportJob[] {
    return this.#journal.all();
  }

  find(id: string): ImportJob | undefined {
    return this.#journal.get(id);
  }

  /** @throws ZvolError `NOT_FOUND` */
  get(id: string): ImportJob {
    const job = this.find(id);
    if (job) return job;
    throw new ZvolError('NOT_FOUND', `there is no import "${id}"`);
  }

  /** @throws ZvolError if it can't be written; nobody is told of it then */
  begin(job: ImportJob): void {
    this.#journal.put(job);
    this.#tell(job);
  }

  /** Its end is known here even where it can't be written; the pool tells the next daemon how it was. */
  settle(job: ImportJob, end: Partial<ImportJob>): void {
    const ended = { ...job, ...end, kept: undefined, completed: Date.now() };
    try {
      this.#journal.put(ended);
    } catch (error) {
      this.#journal.note(ended);
      this.#report(`how the import ${job.id} ended is not kept: ${wordsOf(error)}`);
    }
    this.#tell(ended);
  }

  /** Says how much of a download is safe; what can't be written now is only not gone on with later. */
  keep(id: string, kept: Kept): void {
    try {
      this.#journal.put({ ...this.get(id), kept });
    } catch (error) {
      this.#report(`how far the import ${id} has come is not kept: ${wordsOf(error)}`);
    }
  }

  /** Says that nothing of it is. @throws ZvolError if it can't be written */
  forget(id: string): void {
    this.#journal.put({ ...this.get(id), kept: undefined });
  }

  /** Begins a phase of `total` bytes. @returns what is to be told how many of them are done */
  phase(id: string, state: ImportJob['state'], total: number): (done: number) => void {
    this.#note({ ...this.get(id), state, done: 0, total });
    let told = performance.now();
    return (done) => {
      const now = { ...this.get(id), done };
      // As often as anybody can look.
      if (performance.now() - told < 200) return this.#journal.note(now);
      told = performance.now();
      this.#note(now);
    };
  }

  /** @throws ZvolError `ALREADY_EXISTS` for a name or an id that something has, or a name that another import is at */
  refuseTaken(
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
    const other = this.all().find((each) => !hasEnded(each) && each.name === name && each.target === target);
    if (other) throw new ZvolError('ALREADY_EXISTS', `the import ${other.id} makes a ${target} "${name}"`);
  }

  #note(job: ImportJob): void {
    this.#journal.note(job);
    this.#tell(job);
  }

  #tell(job: ImportJob): void {
    this.#hub.tell({ kind: 'import', job });
  }
}
