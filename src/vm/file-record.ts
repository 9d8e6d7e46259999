import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import * as v from 'valibot';
import type { Context } from '../host/context.ts';
import { withFile } from '../host/files.ts';
import { dataExtents } from '../qemu/img.ts';

const chunkSize = 4 * 1024 * 1024;
/** Zeros are told from data in steps of this length. */
const blockSize = 256 * 1024;
const zeros = Buffer.alloc(chunkSize);

type Extent = [offset: number, length: number];

export const fileRecordSchema = v.object({
  /** Bytes. */
  size: v.number(),
  /** Where something other than zeros lies: offset and length, ascending. */
  data: v.array(v.tuple([v.number(), v.number()])),
  /** CRC-32 of all of `data`, one after the other. */
  crc32: v.number(),
  /** Inode and times of change: while they stay, nobody has written to the file through the file system. */
  seen: v.string(),
});

/**
 * What a large, sparse file held when it was recorded. It is there to notice damage (a flipped bit, a truncation, a
 * file that another one has replaced), not an attacker: CRC-32 tells each of those, several times as fast as a
 * cryptographic digest, so that it can be asked before every use.
 */
export type FileRecord = v.InferOutput<typeof fileRecordSchema>;

/** Reads all that is stored of a file. @throws Failure `files` */
export async function recordFile(ctx: Context, path: string): Promise<FileRecord> {
  const stored = await dataExtents(ctx, path);
  return withFile(path, async (file) => {
    const data: Extent[] = [];
    let sum = 0;
    for await (const { offset, bytes } of chunks(file, stored)) {
      for (const [start, end] of dataBlocks(bytes)) {
        sum = crc32(bytes.subarray(start, end), sum);
        const last = data.at(-1);
        if (last && last[0] + last[1] === offset + start) last[1] += end - start;
        else data.push([offset + start, end - start]);
      }
    }
    return { size: (await file.stat()).size, data, crc32: sum, seen: await identityOf(file) };
  });
}

/** What a look at a file against its record gave; `moved`: it was written to or is a copy, and yet holds the same. */
export type Comparison =
  { readonly same: true; readonly moved: boolean } | { readonly same: false; readonly reason: string };

/**
 * Compares a file with its record. All that was data is read again each time, since a disk may rot; the rest only when
 * the file has been written to since (or is a copy), as nothing is stored for it that could rot.
 * @throws Failure `files` if it can't be read.
 */
export async function compareFile(ctx: Context, path: string, record: FileRecord): Promise<Comparison> {
  return withFile(path, async (file): Promise<Comparison> => {
    const { size } = await file.stat();
    if (size !== record.size) return { same: false, reason: `${size} bytes instead of ${record.size}` };
    const moved = (await identityOf(file)) !== record.seen;
    let sum = 0;
    for await (const { bytes } of chunks(file, record.data)) sum = crc32(bytes, sum);
    const same =
      sum === record.crc32 && (!moved || (await isZeroBeside(file, await dataExtents(ctx, path), record)));
    return same ? { same, moved } : { same, reason: 'its content has changed' };
  });
}

/** The record of a file that holds the same, with its present identity. */
export async function renewRecord(path: string, record: FileRecord): Promise<FileRecord> {
  return withFile(path, async (file) => ({ ...record, seen: await identityOf(file) }));
}

async function identityOf(file: FileHandle): Promise<string> {
  const { ino, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
  return `${ino}:${mtimeNs}:${ctimeNs}`;
}

/** True if all that is stored beside the recorded data is zeros. */
async function isZeroBeside(
  file: FileHandle,
  stored: readonly Extent[],
  { data }: FileRecord,
): Promise<boolean> {
  for await (const { bytes } of chunks(file, without(stored, data))) {
    if (bytes.compare(zeros, 0, bytes.length) !== 0) return false;
  }
  return true;
}

/** The parts of `extents` that none of `others` covers; both ascend. */
export function without(extents: readonly Extent[], others: readonly Extent[]): Extent[] {
  const left: Extent[] = [];
  for (const [offset, length] of extents) {
    const end = offset + length;
    let from = offset;
    for (const [start, size] of others) {
      if (start + size <= from) continue;
      if (start >= end) break;
      if (start > from) left.push([from, start - from]);
      from = start + size;
    }
    if (from < end) left.push([from, end - from]);
  }
  return left;
}

/** The parts of a chunk that hold something other than zeros, block by block. */
function* dataBlocks(bytes: Buffer): Generator<[start: number, end: number]> {
  for (let start = 0; start < bytes.length; start += blockSize) {
    const end = Math.min(start + blockSize, bytes.length);
    if (bytes.compare(zeros, 0, end - start, start, end) !== 0) yield [start, end];
  }
}

/**
 * Parts of a file, chunk by chunk; each is overwritten by the one after the next. The next is read while one is looked
 * at. Ends early where the file does.
 */
async function* chunks(
  file: FileHandle,
  extents: readonly Extent[],
): AsyncGenerator<{ readonly offset: number; readonly bytes: Buffer }> {
  const buffers = [Buffer.allocUnsafe(chunkSize), Buffer.allocUnsafe(chunkSize)] as const;
  const pieces = extents.flatMap(split);
  const read = async (index: number): Promise<Buffer> => {
    const [offset, length] = pieces[index] ?? [0, 0];
    const { buffer, bytesRead } = await file.read(buffers[index % 2 ? 1 : 0], 0, length, offset);
    return buffer.subarray(0, bytesRead);
  };
  let coming = read(0);
  try {
    for (const [index, [offset, length]] of pieces.entries()) {
      const bytes = await coming;
      coming = read(index + 1);
      yield { offset, bytes };
      if (bytes.length < length) return;
    }
  } finally {
    await coming.catch(() => undefined);
  }
}

/** An extent in pieces no longer than a chunk. */
function split([offset, length]: Extent): Extent[] {
  const count = Math.ceil(length / chunkSize);
  return Array.from({ length: count }, (_, i) => [
    offset + i * chunkSize,
    Math.min(chunkSize, length - i * chunkSize),
  ]);
}
