import type { FileHandle } from 'node:fs/promises';
import { ZvolError } from './errors.ts';
import { refusal, type Qcow2Header } from './qcow2-header.ts';

export interface TableOptions {
  readonly signal: AbortSignal;
  /** Told how many bytes of tables are behind it, of `tableBytes`. */
  readonly progress: (done: number) => void;
}

/** Bytes of the first table that are kept at once; a second table is a cluster, 2 MiB at most. */
const window = 64 * 1024;

/**
 * Looks whether all that a qcow2's tables lead to lies within the file: QEMU reads zeros beyond its end, so that one that
 * was cut off would pass for a disk with nothing in it there. Only tables are read, one at a time.
 * @param length bytes of the file.
 * @returns bytes of the content that lie in the file
 * @throws ZvolError `DATA_LOSS` for a file that was cut off, `INVALID_ARGUMENT` for tables that make no sense
 */
export async function checkTables(
  file: FileHandle,
  length: number,
  header: Qcow2Header,
  { signal, progress }: TableOptions,
): Promise<number> {
  const { clusterSize, firstTable } = header;
  requireWithin(length, 'its first table', firstTable.offset, firstTable.entries * 8);
  const covered = coveredBy(header);
  // Entries beyond those belong to states of memory, which nobody reads.
  const entries = tableBytes(header) / clusterSize;
  const first = Buffer.alloc(window);
  const second = Buffer.alloc(clusterSize);
  let allocated = 0;
  for (let index = 0; index < entries; index += 1) {
    signal.throwIfAborted();
    const at = (index * 8) % window;
    if (at === 0)
      await readAll(
        file,
        first.subarray(0, Math.min(window, (entries - index) * 8)),
        firstTable.offset + index * 8,
      );
    const offset = offsetAt(first, at);
    if (offset !== 0) {
      requireTable(length, clusterSize, offset, index * covered);
      await readAll(file, second, offset);
      allocated += checkTable(second, index * covered, length, header);
    }
    progress((index + 1) * clusterSize);
  }
  return allocated;
}

/** Bytes of the second tables that a header's size can have. */
export function tableBytes(header: Qcow2Header): number {
  return Math.ceil(header.size / coveredBy(header)) * header.clusterSize;
}

/** Bytes of content that a second table stands for. */
const coveredBy = (header: Qcow2Header): number =>
  header.clusterSize * (header.clusterSize / entryLength(header));

const entryLength = ({ subclusters }: Qcow2Header): number => (subclusters ? 16 : 8);

/** Bits 9 to 55: where something lies. A number that is too large to be exact is beyond any file all the same. */
function offsetAt(table: Buffer, at: number): number {
  return (table.readUInt32BE(at) & 0xffffff) * 2 ** 32 + ((table.readUInt32BE(at + 4) & 0xfffffe00) >>> 0);
}

function cutOff(length: number, what: string, from: number, to: number): ZvolError {
  return new ZvolError(
    'DATA_LOSS',
    `the qcow2 was cut off: it has ${length} bytes, and ${what} lies from ${from} to ${to}`,
  );
}

function requireWithin(length: number, what: string, offset: number, bytes: number): void {
  if (offset + bytes > length) throw cutOff(length, what, offset, offset + bytes);
}

function requireTable(length: number, clusterSize: number, offset: number, covers: number): void {
  const what = `the table of its content from byte ${covers} on`;
  if (offset % clusterSize !== 0) throw refusal(`${what} lies at ${offset}, which makes no sense`);
  requireWithin(length, what, offset, clusterSize);
}

async function readAll(file: FileHandle, into: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) throw new ZvolError('DATA_LOSS', 'the qcow2 became shorter while it was read');
    done += bytesRead;
  }
}

/** Looks at all clusters that a second table leads to. @returns bytes of the content that lie in the file */
function checkTable(table: Buffer, from: number, length: number, header: Qcow2Header): number {
  const { clusterSize, size, subclusters } = header;
  const step = entryLength(header);
  let allocated = 0;
  for (let at = 0, start = from; at < table.length && start < size; at += step, start += clusterSize) {
    const [high, low] = [table.readUInt32BE(at), table.readUInt32BE(at + 4)];
    // Most entries of most images.
    if (high === 0 && low === 0 && !subclusters) continue;
    const needed = Math.min(clusterSize, size - start);
    if (high & 0x40000000) {
      checkCompressed(high, low, start, length, header);
      allocated += needed;
    } else allocated += checkStandard(table, at, { start, needed, length }, header);
  }
  return allocated;
}

/** How long it is, is told in sectors, the last of which no writer has to fill. */
function checkCompressed(
  high: number,
  low: number,
  start: number,
  length: number,
  { clusterSize }: Qcow2Header,
): void {
  const offsetBits = 70 - Math.log2(clusterSize);
  const offset = (high & (2 ** (offsetBits - 32) - 1)) * 2 ** 32 + low;
  const sectors = ((high & 0x3fffffff) >>> (offsetBits - 32)) + 1;
  const end = (Math.floor(offset / 512) + sectors) * 512;
  if (offset >= length || end > Math.ceil(length / 512) * 512)
    throw cutOff(length, `the packed content of byte ${start}`, offset, end);
}

interface Place {
  /** Of the cluster in the content. */
  readonly start: number;
  /** Bytes of it that belong to the content. */
  readonly needed: number;
  readonly length: number;
}

function checkStandard(
  table: Buffer,
  at: number,
  { start, needed, length }: Place,
  { version, clusterSize, subclusters }: Qcow2Header,
): number {
  const zero = !subclusters && (table.readUInt32BE(at + 4) & 1) === 1;
  if (zero && version === 2)
    throw refusal(`the cluster of byte ${start} is marked in a way that version 2 does not have`);
  if (zero) return 0;
  const offset = offsetAt(table, at);
  const parts = subclusters ? table.readUInt32BE(at + 12) : 0xffffffff;
  if (parts === 0 || (offset === 0 && !subclusters)) return 0;
  if (offset === 0 || offset % clusterSize !== 0)
    throw refusal(`the content of byte ${start} lies at ${offset}, which makes no sense`);
  // As far as the last subcluster that is in use.
  const used = Math.min(needed, ((32 - Math.clz32(parts)) / 32) * clusterSize);
  if (offset + used > length) throw cutOff(length, `the content of byte ${start}`, offset, offset + used);
  return used;
}
