import { createReadStream } from 'node:fs';
import { mkdir, open, rm, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createHash } from 'node:crypto';
import { ZvolError } from './errors.ts';
import { checkQcow2, headerLength, isQcow2 } from './qcow2-header.ts';

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
export interface LocalFile {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** Bytes of the content. */
  readonly size: number;
  /** Bytes of the file. */
  readonly length: number;
}

/** Looks at a file. @throws ZvolError `INVALID_ARGUMENT` for what is no disk, or a qcow2 that is refused */
export async function lookAtFile(path: string): Promise<LocalFile> {
  const file = await open(path, 'r');
  try {
    const info = await file.stat();
    if (!info.isFile()) throw new ZvolError('INVALID_ARGUMENT', `${path} is no file`);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headerLength), 0, headerLength, 0);
    const start = buffer.subarray(0, bytesRead);
    if (isQcow2(start)) return { path, format: 'qcow2', size: checkQcow2(start), length: info.size };
    if (info.size === 0) throw new ZvolError('INVALID_ARGUMENT', `${path} is empty`);
    return { path, format: 'raw', size: info.size, length: info.size };
  } finally {
    await file.close();
  }
}

/** The SHA-256 of a file, in hex. */
export async function sha256OfFile(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { signal }) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex');
}

/** What is left on the file system of temporary files, whatever comes. */
const spoolReserve = 64 * 1024 * 1024;

/**
 * Keeps content in a file, for what has to be read here and there; looks for room before and meanwhile.
 * @throws ZvolError `RESOURCE_EXHAUSTED`
 */
export async function spool(
  source: AsyncIterable<Buffer>,
  path: string,
  {
    total,
    largest,
    signal,
    progress,
  }: { total?: number | undefined; largest: number; signal: AbortSignal; progress: (done: number) => void },
): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const room = async (): Promise<number> => {
    const { bavail, bsize } = await statfs(dirname(path));
    return bavail * bsize - spoolReserve;
  };
  const tooMuch = (): ZvolError =>
    new ZvolError('RESOURCE_EXHAUSTED', `there is no room for the source in ${dirname(path)}`);
  if (total !== undefined && total > (await room())) throw tooMuch();
  const file = await open(path, 'wx', 0o600);
  let [bytes, looked] = [0, 0];
  try {
    for await (const chunk of source) {
      signal.throwIfAborted();
      if (bytes + chunk.length > largest)
        throw new ZvolError(
          'RESOURCE_EXHAUSTED',
          `the source has more than the ${largest} bytes that are taken`,
        );
      if (bytes - looked > spoolReserve / 4) {
        if ((await room()) < 0) throw tooMuch();
        looked = bytes;
      }
      for (let done = 0; done < chunk.length;) done += (await file.write(chunk, done)).bytesWritten;
      bytes += chunk.length;
      progress(bytes);
    }
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** The size of a file in bytes. */
export async function lengthOf(path: string): Promise<number> {
  return (await stat(path)).size;
}
