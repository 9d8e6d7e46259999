import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { wordsOf, ZvolError, type ZvolCode } from './errors.ts';
import type { Kept } from './kept.ts';
import { outOfSpace } from './sink.ts';

export type ImportTarget = 'template' | 'volume';
export type ImportState =
  'pending' | 'downloading' | 'converting' | 'writing' | 'completed' | 'failed' | 'cancelled';

/** An import, as its journal has it. */
export interface ImportJob {
  readonly id: string;
  /** Of what it makes. */
  readonly name: string;
  readonly target: ImportTarget;
  /** A path, an address, or `upload`. */
  readonly source: string;
  /** Bytes of what it makes; that of the source without. */
  readonly size?: number | undefined;
  readonly blockSize: number;
  /** Of the source's bytes; empty: not looked at. */
  readonly sha256: string;
  readonly state: ImportState;
  /** Bytes of the present phase. */
  readonly done: number;
  /** All of them; 0 where nobody knows. */
  readonly total: number;
  readonly error: string;
  /** What kind of an error that is. */
  readonly code?: ZvolCode | undefined;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly completed?: number | undefined;
  /** What of a download is safe, until the import has ended. */
  readonly kept?: Kept | undefined;
}

/** True for one that goes on no more. */
export function hasEnded({ state }: ImportJob): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}

/** Imports that ended are forgotten beyond this number, the oldest first. */
const kept = 200;

/** Keeps imports on the disk, a file each, so that the next start knows what the last one was at. */
export class Journal {
  readonly #folder: string;
  readonly #jobs = new Map<string, ImportJob>();

  /** @param report told of what is there and can't be used. @throws errors of Node's own if the folder can't be read */
  constructor(folder: string, report: (words: string) => void) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      // Of one that was killed while it wrote; the one before is there as well.
      if (name.endsWith('.json.new')) rmSync(path, { force: true });
      else if (name.endsWith('.json')) this.#take(path, report);
    }
  }

  /** What can't be read now may be whole; what is no journal is put aside, so that nobody takes it for one again. */
  #take(path: string, report: (words: string) => void): void {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      return report(`the import in ${path} is not known, as it can't be read: ${wordsOf(error)}`);
    }
    const job = jobIn(text);
    if (job) return void this.#jobs.set(job.id, job);
    const aside = `${path}.damaged`;
    try {
      renameSync(path, aside);
      report(`${path} is no journal of an import, and was put aside: ${aside}`);
    } catch (error) {
      report(`${path} is no journal of an import, and can't be put aside: ${wordsOf(error)}`);
    }
  }

  /** Oldest first. */
  all(): ImportJob[] {
    return [...this.#jobs.values()].sort((a, b) => a.created - b.created);
  }

  get(id: string): ImportJob | undefined {
    return this.#jobs.get(id);
  }

  /**
   * Writes it beside and renames, so that a crash leaves the one before or this one.
   * @throws ZvolError `RESOURCE_EXHAUSTED`, `INTERNAL` if it can't be written; it is as it was before then
   */
  put(job: ImportJob): void {
    const path = this.#pathOf(job.id);
    try {
      writeSafely(`${path}.new`, JSON.stringify(job));
      renameSync(`${path}.new`, path);
      syncFolder(this.#folder);
    } catch (error) {
      rmSync(`${path}.new`, { force: true });
      throw new ZvolError(
        outOfSpace(error) ? 'RESOURCE_EXHAUSTED' : 'INTERNAL',
        `the journal of imports in ${this.#folder} can't be written: ${wordsOf(error)}`,
        error,
      );
    }
    this.#jobs.set(job.id, job);
    if (hasEnded(job)) this.#forgetOldest();
  }

  /** What need not survive a crash: how far it is. */
  note(job: ImportJob): void {
    this.#jobs.set(job.id, job);
  }

  #forgetOldest(): void {
    const ended = this.all().filter(hasEnded);
    for (const { id } of ended.slice(0, Math.max(0, ended.length - kept))) {
      this.#jobs.delete(id);
      rmSync(this.#pathOf(id), { force: true });
    }
  }

  #pathOf(id: string): string {
    return join(this.#folder, `${id}.json`);
  }
}

/** Its content is there after a crash; `writeFileSync` sees to that only in newer Nodes than distributions have. */
function writeSafely(path: string, text: string): void {
  const file = openSync(path, 'w', 0o600);
  try {
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** A name that was given is there after a crash only then. */
function syncFolder(path: string): void {
  const folder = openSync(path, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function jobIn(text: string): ImportJob | undefined {
  try {
    const job = JSON.parse(text) as Partial<ImportJob> | null;
    return typeof job?.id === 'string' && typeof job.name === 'string' && typeof job.state === 'string'
      ? (job as ImportJob)
      : undefined;
  } catch {
    return undefined;
  }
}
