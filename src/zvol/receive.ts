import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { exists, flush } from '../host/files.ts';
import { lockOpenFile } from '../host/lock.ts';
import { putInFreePlace } from '../host/whole-file.ts';
import type { Export } from './messages.ts';

export interface Receiving {
  /** What is received, for messages. */
  readonly what: string;
  /** The file that it becomes. */
  readonly path: string;
  /** A file of that name may be replaced. */
  readonly overwrite: boolean;
  readonly signal: AbortSignal;
  /** Told how many of how many bytes are behind it. */
  readonly progress: (done: number, total: number) => void;
}

export interface Received {
  readonly total: number;
  /** In hex, of all bytes. */
  readonly sha256: string;
}

/** Beside the file, and always the same, so that what a killed zfsdev left is written over by the next. */
const partOf = (path: string): string => join(dirname(path), `.${basename(path)}.zfsdev-part`);

/**
 * Writes an export beside the file that it is to be, sparse; compares its checksum with the one that was sent, and only then
 * gives it its name.
 * @throws Failure `already-exists`, `no-space`, `files`, `guest` for content that did not come as it was sent
 */
export async function receive(messages: AsyncIterable<Export>, receiving: Receiving): Promise<Received> {
  const { path } = receiving;
  refuseTaken(receiving);
  const part = partOf(path);
  let file: FileHandle | undefined;
  try {
    file = await openPart(part, receiving.signal);
    const received = await write(file, messages, receiving);
    await nameIt(part, receiving);
    return received;
  } catch (error) {
    // Only what is this one's: without the lock it may be another's.
    if (file) await rm(part, { force: true });
    throw meaningOf(error, receiving);
  } finally {
    await file?.close();
  }
}

function refuseTaken({ path, overwrite }: Receiving): void {
  if (!exists(dirname(path)))
    throw new Failure('not-found', `there is no folder ${dirname(path)}`, {
      hint: 'make it first, or name another',
    });
  if (!overwrite && exists(path))
    throw new Failure('already-exists', `${path} is there already`, { hint: '--overwrite replaces it' });
}

/**
 * Opens it for this process alone; waits for another one that writes the same. It is the file itself that is locked, not one of the
 * state home's as for `makeWholeFile`: the place is any folder of the user's, where a zfsdev of another state home may write as well.
 */
async function openPart(part: string, signal: AbortSignal): Promise<FileHandle> {
  for (;;) {
    const file = await open(part, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    try {
      await lockOpenFile(file, signal);
      const [mine, named] = [await file.stat(), await stat(part).catch(() => undefined)];
      // Another one may have given it its name meanwhile: that file is not to be written to.
      if (named && named.ino === mine.ino && named.dev === mine.dev) {
        await file.truncate(0);
        return file;
      }
    } catch (error) {
      await file.close();
      throw error;
    }
    await file.close();
  }
}

async function write(
  file: FileHandle,
  messages: AsyncIterable<Export>,
  { what, signal, progress }: Receiving,
): Promise<Received> {
  const sum = new Sum(signal);
  let [total, sha256] = [0, ''];
  for await (const { totalBytes, data, offset, sha256: sent } of messages) {
    if (totalBytes) total = totalBytes;
    if (sent) sha256 = sent;
    if (data.length > 0) {
      if (offset < sum.length || offset + data.length > total)
        throw new Failure('guest', `the export of ${what} came in disorder; nothing of it stays`);
      await sum.zerosUpTo(offset);
      sum.add(data);
      for (let done = 0; done < data.length;)
        done += (await file.write(data, done, data.length - done, offset + done)).bytesWritten;
    }
    progress(offset + data.length, total);
  }
  signal.throwIfAborted();
  if (sha256 === '') throw new Failure('guest', `the export of ${what} was cut off; nothing of it stays`);
  await sum.zerosUpTo(total);
  const found = sum.digest();
  if (found !== sha256)
    throw new Failure(
      'guest',
      `the export of ${what} came with the checksum ${found}, and was sent with ${sha256}; nothing of it stays`,
      { hint: 'try again, and report it if it happens twice' },
    );
  await file.truncate(total);
  await file.sync();
  return { total, sha256 };
}

const zeros = Buffer.alloc(1024 * 1024);
/** Pieces of zeros after which others get their turn. */
const atOnce = 64;

/** The checksum of content in which zeros are not sent. */
class Sum {
  readonly #hash = createHash('sha256');
  readonly #signal: AbortSignal;
  length = 0;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  add(data: Buffer): void {
    this.#hash.update(data);
    this.length += data.length;
  }

  async zerosUpTo(end: number): Promise<void> {
    for (let pieces = 1; this.length < end; pieces += 1) {
      this.add(zeros.subarray(0, Math.min(zeros.length, end - this.length)));
      // Holes can be of any size.
      if (pieces % atOnce === 0) await setImmediate(undefined, { signal: this.#signal });
    }
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

/** Takes nobody's place who came meanwhile, unless that was asked for. */
async function nameIt(part: string, { path, overwrite }: Receiving): Promise<void> {
  await (overwrite ? rename(part, path) : putInFreePlace(part, path));
  await flush(dirname(path));
}

function meaningOf(error: unknown, { what, path, signal }: Receiving): unknown {
  if (signal.aborted)
    return new Failure('interrupted', `the export of ${what} was interrupted`, { cause: error });
  if (error instanceof Failure || !(error instanceof Error) || !('code' in error)) return error;
  if (hasCode(error, 'ENOSPC', 'EDQUOT'))
    return new Failure(
      'no-space',
      `there is no room left in ${dirname(path)} for ${basename(path)}; nothing of it stays`,
      {
        hint: 'make room there, or name a file on another file system',
        cause: error,
      },
    );
  return new Failure('files', `${path} can't be written: ${messageOf(error)}`, { cause: error });
}
