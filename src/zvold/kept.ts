import type { FileHandle } from 'node:fs/promises';
import { ZvolError } from './errors.ts';

const MiB = 2 ** 20;

/** How much of a download lies safely in the machine, so that a later daemon can go on with it. */
export interface Kept {
  /** In the import's zvol, or in a file where it waits to be read. */
  readonly place: 'zvol' | 'file';
  /** Bytes from the beginning that are safe there. */
  readonly bytes: number;
  /** Bytes of the whole. */
  readonly total: number;
  /** What the server calls this very content: its ETag, or the time of its last change. */
  readonly validator: string;
}

/** Told how many bytes of a download are safe in their place. */
export type Keep = (place: Kept['place'], bytes: number) => void;

/** Bytes, and milliseconds, after which what has come is made safe. */
const [mostUnsafe, longest] = [64 * MiB, 5_000];

/** Bytes behind the safe ones that may have been written as well, the piece that was just being written included. */
export const mostBehind = mostUnsafe + 2 * MiB;

/**
 * Makes what has come safe every now and then, and tells how much that is: at once at first, then whenever there is twice as
 * much, and at last at a steady pace.
 */
export class Checkpoints {
  readonly #flush: () => Promise<void>;
  readonly #tell: (bytes: number) => void;
  #safe: number;
  #time = performance.now();

  /** @param flush has all that was written reach the disk. @param safe bytes that are safe already */
  constructor(flush: () => Promise<void>, tell: (bytes: number) => void, safe: number) {
    this.#flush = flush;
    this.#tell = tell;
    this.#safe = safe;
  }

  /** To be called with how many bytes are written, from the beginning on. */
  async passed(bytes: number): Promise<void> {
    const isFew = bytes - this.#safe < Math.min(this.#safe, mostUnsafe);
    if (!isFew || performance.now() - this.#time >= longest) await this.now(bytes);
  }

  async now(bytes: number): Promise<void> {
    await this.#flush();
    this.#tell(bytes);
    this.#safe = bytes;
    this.#time = performance.now();
  }
}

/** What was kept of a download is of no use: all of it has to come anew. */
export class StartOver extends ZvolError {
  constructor(why: string) {
    super('UNAVAILABLE', why);
  }
}

/** The reason of a signal by which a daemon that ends leaves an import to the next one. */
export class Suspended extends Error {}

/** True for an import that is left to the next daemon: what it has made stays. */
export function isSuspended(signal: AbortSignal): boolean {
  return signal.aborted && signal.reason instanceof Suspended;
}

/** For steps after which an import is whole: one that is only left to the next daemon is brought to its end. */
export function throwIfCalledOff(signal: AbortSignal): void {
  if (!isSuspended(signal)) signal.throwIfAborted();
}

/** The first bytes of what is there already, in pieces. @throws StartOver if there are fewer */
export async function* beginningOf(
  file: FileHandle,
  length: number,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const piece = Buffer.alloc(MiB);
  for (let at = 0; at < length;) {
    signal.throwIfAborted();
    const { bytesRead } = await file.read(piece, 0, Math.min(piece.length, length - at), at);
    if (bytesRead === 0) throw new StartOver(`only ${at} of the ${length} bytes that were kept are there`);
    yield piece.subarray(0, bytesRead);
    at += bytesRead;
  }
}
