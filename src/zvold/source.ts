import { constants, createReadStream } from 'node:fs';
import { mkdir, open, rm, statfs, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createHash } from 'node:crypto';
import { wordsOf, ZvolError } from './errors.ts';
import { beginningOf, Checkpoints, StartOver } from './kept.ts';
import { checkQcow2, headerLength, isQcow2, type Qcow2Header } from './qcow2-header.ts';
import { outOfSpace, writeAll } from './sink.ts';

/** Content that is looked at before it is read. */
export interface Peeked {
  readonly start: Buffer;
  /** All of it, the beginning included. */
  readonly bytes: AsyncIterable<Buffer>;
}

/** Reads so much that it can be told what it is. */
export async function peek(source: AsyncIterable<Buffer>): Promise<Peeked> {
  const iterator = source[Symbol.asyncIterator]();
  const read: Buffer[] = [];
  let length = 0;
  let ended = false;
  while (length < headerLength && !ended) {
    const next = await iterator.next();
    if (next.done) ended = true;
    else {
      read.push(next.value);
      length += next.value.length;
    }
  }
  const start = Buffer.concat(read);
  async function* all(): AsyncGenerator<Buffer> {
    try {
      if (start.length > 0) yield start;
      for (
        let next = ended ? { done: true as const, value: undefined } : await iterator.next();
        !next.done;
        next = await iterator.next()
      )
        yield next.value;
    } finally {
      await iterator.return?.();
    }
  }
  return { start, bytes: all() };
}

/** A local file, and what it is. */
export type LocalFile = {
  readonly path: string;
  /** Bytes of the content. */
  readonly size: number;
  /** Bytes of the file. */
  readonly length: number;
} & ({ readonly format: 'raw' } | { readonly format: 'qcow2'; readonly header: Qcow2Header });

/** Looks at a file. @throws ZvolError `INVALID_ARGUMENT` for what is no disk, or a qcow2 that is refused */
export async function lookAtFile(path: string): Promise<LocalFile> {
  // A pipe would be waited for until somebody writes to it, which may be never.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const info = await file.stat();
    if (!info.isFile()) throw new ZvolError('INVALID_ARGUMENT', `${path} is no file`);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headerLength), 0, headerLength, 0);
    const start = buffer.subarray(0, bytesRead);
    if (isQcow2(start)) {
      const header = checkQcow2(start);
      return { path, format: 'qcow2', size: header.size, length: info.size, header };
    }
    if (info.size === 0) throw new ZvolError('INVALID_ARGUMENT', `${path} is empty`);
    return { path, format: 'raw', size: info.size, length: info.size };
  } finally {
    await file.close();
  }
}

/** The SHA-256 of a file, in hex. @param progress told how many bytes are read */
export async function sha256OfFile(
  path: string,
  signal: AbortSignal,
  progress: (done: number) => void,
): Promise<string> {
  const hash = createHash('sha256');
  let done = 0;
  for await (const chunk of readFrom(path, signal)) {
    hash.update(chunk);
    done += chunk.length;
    progress(done);
  }
  return hash.digest('hex');
}

/** The bytes of a file, in large pieces. */
export async function* readFrom(path: string, signal: AbortSignal): AsyncGenerator<Buffer> {
  // Opened when it is read: an error of a stream that nobody reads yet would end the daemon.
  yield* createReadStream(path, { highWaterMark: 1024 * 1024, signal }) as AsyncIterable<Buffer>;
}

/** Bytes that are left on the file system of temporary files, whatever comes. */
export const spoolReserve = 64 * 1024 * 1024;

/** Bytes that may still be written to temporary files in a folder. */
export async function spoolRoom(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize - spoolReserve;
}

export interface SpoolOptions {
  readonly total?: number | undefined;
  /** Bytes that are taken at most. */
  readonly largest: number;
  readonly signal: AbortSignal;
  readonly progress: (done: number) => void;
  /** Whether the checksum is wanted, for which what is there already is read as well. */
  readonly hashed: boolean;
  /** Bytes that are there already; none unless told. */
  readonly from?: number | undefined;
  /** Told every now and then how many bytes are safe in the file, if anybody wants to know. */
  readonly safe?: ((bytes: number) => void) | undefined;
}

/**
 * Keeps content in a file, for what has to be read here and there; looks for room before and meanwhile. Whoever asked for it takes
 * the file away.
 * @param source what comes behind the bytes that are there
 * @returns its SHA-256 in hex if that was wanted. @throws ZvolError `RESOURCE_EXHAUSTED`, StartOver
 */
export async function spool(
  source: AsyncIterable<Buffer>,
  path: string,
  { total, largest, signal, progress, hashed, from = 0, safe }: SpoolOptions,
): Promise<string | undefined> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const tooMuch = (): ZvolError =>
    new ZvolError(
      'RESOURCE_EXHAUSTED',
      `there is no room for the source in ${folder} of the machine, where it is kept until it is read`,
    );
  if (total !== undefined && total - from > (await spoolRoom(folder))) throw tooMuch();
  const hash = hashed ? createHash('sha256') : undefined;
  const file = await (from > 0 ? reopened(path, from) : anew(path));
  const checkpoints = safe && new Checkpoints(() => file.datasync(), safe, from);
  // So that what is little is looked at as well.
  let [bytes, looked] = [0, from - spoolReserve];
  try {
    if (hash)
      for await (const piece of beginningOf(file, from, signal)) {
        hash.update(piece);
        progress((bytes += piece.length));
      }
    bytes = from;
    for await (const chunk of source) {
      signal.throwIfAborted();
      if (bytes + chunk.length > largest)
        throw new ZvolError(
          'RESOURCE_EXHAUSTED',
          `the source has more than the ${largest} bytes that are taken`,
        );
      if (bytes - looked > spoolReserve / 4) {
        if ((await spoolRoom(folder)) < chunk.length) throw tooMuch();
        looked = bytes;
      }
      hash?.update(chunk);
      await writeAll(file, chunk, bytes);
      bytes += chunk.length;
      progress(bytes);
      await checkpoints?.passed(bytes);
    }
    // All of it, so that nothing has to come again while it is read.
    await checkpoints?.now(bytes);
    return hash?.digest('hex');
  } catch (error) {
    // Said here: what writes to the pool fails in the same words.
    throw outOfSpace(error) ? tooMuch() : error;
  } finally {
    await file.close();
  }
}

/** A new file; one that an earlier daemon left is of no use. */
async function anew(path: string): Promise<FileHandle> {
  await rm(path, { force: true });
  return open(path, 'wx+', 0o600);
}

/** The file that an earlier daemon left, without what may not have reached the disk. @throws StartOver */
async function reopened(path: string, length: number): Promise<FileHandle> {
  let file: FileHandle;
  try {
    file = await open(path, 'r+');
  } catch (error) {
    throw new StartOver(`what was kept of it can't be opened: ${wordsOf(error)}`);
  }
  try {
    const { size } = await file.stat();
    if (size < length) throw new StartOver(`only ${size} of the ${length} bytes that were kept are there`);
    await file.truncate(length);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}
