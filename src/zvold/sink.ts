import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { ZvolError } from './errors.ts';
import { beginningOf, Checkpoints, mostBehind } from './kept.ts';

const pieceLength = 1024 * 1024;
const zeros = Buffer.alloc(pieceLength);

export interface SinkOptions {
  /** Bytes that the target has room for. */
  readonly room: number;
  readonly signal: AbortSignal;
  /** Told how many bytes have come. */
  readonly progress: (done: number) => void;
  /** Whether the checksum is wanted, for which what is there already is read as well. */
  readonly hashed: boolean;
  /** Bytes that are there already; none unless told. */
  readonly from?: number | undefined;
  /** Told every now and then how many bytes have safely reached the target, if anybody wants to know. */
  readonly safe?: ((bytes: number) => void) | undefined;
  /** Asked before each piece is written, with how many bytes were, and how to have them reach the target: what it throws is thrown. */
  readonly admit: (written: number, flush: () => Promise<void>) => Promise<void>;
}

/**
 * Writes raw content to a target that is all zeros before, or has the beginning of it: parts of zeros are left out. All of it
 * has reached the target when this ends.
 * @param source what comes behind the bytes that are there
 * @returns how much there is, and its SHA-256 in hex if that was wanted
 * @throws ZvolError `RESOURCE_EXHAUSTED`, `INVALID_ARGUMENT` for too much
 */
export async function pour(
  source: AsyncIterable<Buffer>,
  target: string,
  { room, signal, progress, hashed, from = 0, safe, admit }: SinkOptions,
): Promise<{ readonly bytes: number; readonly sha256: string | undefined }> {
  const hash = hashed ? createHash('sha256') : undefined;
  const file = await open(target, constants.O_RDWR);
  const flush = (): Promise<void> => file.datasync();
  const checkpoints = safe && new Checkpoints(flush, safe, from);
  // What was written behind the bytes that are safe need not be zero.
  const behind = from > 0 ? from + mostBehind : 0;
  let [bytes, written] = [0, 0];
  try {
    await admit(written, flush);
    if (hash)
      for await (const piece of beginningOf(file, from, signal)) {
        hash.update(piece);
        progress((bytes += piece.length));
      }
    bytes = from;
    for await (const piece of inPieces(source)) {
      signal.throwIfAborted();
      if (bytes + piece.length > room)
        throw new ZvolError(
          'INVALID_ARGUMENT',
          `the source has more than the ${room} bytes that there are for it`,
        );
      hash?.update(piece);
      if (bytes < behind || !piece.equals(zeros.subarray(0, piece.length))) {
        await admit(written, flush);
        await writeAll(file, piece, bytes);
        written += piece.length;
      }
      bytes += piece.length;
      progress(bytes);
      await checkpoints?.passed(bytes);
    }
    await file.sync();
  } catch (error) {
    throw outOfSpace(error) ?? error;
  } finally {
    await file.close().catch(() => undefined);
  }
  return { bytes, sha256: hash?.digest('hex') };
}

/** Writes all of a piece at a place. */
export async function writeAll(file: FileHandle, piece: Buffer, at: number): Promise<void> {
  for (let done = 0; done < piece.length;)
    done += (await file.write(piece, done, piece.length - done, at + done)).bytesWritten;
}

/** Pieces of one length but the last, however the source is cut: zeros are found, and the device gets few large writes. */
async function* inPieces(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let waiting: Buffer[] = [];
  let length = 0;
  for await (const chunk of source) {
    waiting.push(chunk);
    length += chunk.length;
    if (length < pieceLength) continue;
    const all = Buffer.concat(waiting);
    const whole = length - (length % pieceLength);
    for (let at = 0; at < whole; at += pieceLength) yield all.subarray(at, at + pieceLength);
    waiting = [all.subarray(whole)];
    length -= whole;
  }
  if (length > 0) yield Buffer.concat(waiting);
}

/** What is written to a pool that is full. */
export function outOfSpace(error: unknown): ZvolError | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? new ZvolError('RESOURCE_EXHAUSTED', 'the pool was full before all of it was written', error)
    : undefined;
}
