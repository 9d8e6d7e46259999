import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { hasCode } from '../core/errors.ts';
import { readIfExists, writeFileAtomically } from '../host/files.ts';

const schema = v.object({
  url: v.string(),
  /** What the server calls this state of the file: a strong ETag, or the time of its last change. */
  validator: v.string(),
  total: v.optional(v.number()),
});

/** What is known of a download that isn't whole. */
export type PartialRecord = v.InferOutput<typeof schema>;

/** A download that was cut off, and can go on: a folder with what has come, and what it is. */
export class PartialDownload {
  /** What has come so far. */
  readonly file: string;
  readonly #record: string;

  constructor(folder: string) {
    this.file = join(folder, 'part');
    this.#record = join(folder, 'pull.json');
  }

  /** Bytes that are there, and what they are of; undefined if nothing can be gone on with. */
  async resumable(url: string): Promise<{ bytes: number; record: PartialRecord } | undefined> {
    const record = this.#read();
    const bytes = await this.bytes();
    return record?.url === url && bytes > 0 ? { bytes, record } : undefined;
  }

  async bytes(): Promise<number> {
    try {
      return (await stat(this.file)).size;
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return 0;
      throw error;
    }
  }

  /** Remembers what the bytes to come are of. Without a validator they can't be gone on with. */
  async begin(record: Omit<PartialRecord, 'validator'> & { validator: string | undefined }): Promise<void> {
    if (record.validator === undefined) await rm(this.#record, { force: true });
    else await writeFileAtomically(this.#record, `${JSON.stringify(record)}\n`);
  }

  /** Forgets all of it. */
  async restart(): Promise<void> {
    await Promise.all([this.file, this.#record].map((path) => rm(path, { force: true })));
  }

  #read(): PartialRecord | undefined {
    const text = readIfExists(this.#record);
    try {
      const parsed = v.safeParse(schema, JSON.parse(text ?? 'null'));
      return parsed.success ? parsed.output : undefined;
    } catch (error) {
      if (error instanceof SyntaxError) return undefined;
      throw error;
    }
  }
}
