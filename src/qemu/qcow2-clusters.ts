import { fstatSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { endsEarly, read, type Qcow2Header, type Table } from './qcow2-header.ts';

/** QEMU's own limit; a file that says more is damaged, and nothing of that size is ever read. */
const maxTable = 32 * 1024 * 1024;

/** @throws Error if the first table can't be the one of this disk, or leads out of the file. */
export function checkFirstTable(fd: number, header: Qcow2Header): void {
  const { virtual, clusterSize, extendedL2, active, external } = header;
  const perTable = clusterSize / (extendedL2 ? 16 : 8);
  if (active.entries < Math.ceil(virtual / clusterSize / perTable)) {
    throw new Error('it is damaged: its first table is too small for its virtual size');
  }
  if (!external) readFirstTable(fd, header, active);
}

/** Where the second tables lie, without those that are not there. */
export function readFirstTable(fd: number, { clusterSize, length }: Qcow2Header, table: Table): number[] {
  if (table.entries === 0) return [];
  if (table.entries * 8 > maxTable)
    throw new Error('it is damaged: its first table is larger than any disk needs');
  if (table.offset % clusterSize !== 0 || table.offset + table.entries * 8 > length) {
    throw new Error('it is damaged: its first table is not where it says');
  }
  const bytes = read(fd, table.offset, table.entries * 8);
  const found: number[] = [];
  for (let at = 0; at < bytes.length; at += 8) {
    const offset = offsetAt(bytes, at);
    if (offset === 0) continue;
    if (offset % clusterSize !== 0) throw new Error('it is damaged: its first table makes no sense');
    found.push(offset);
  }
  const last = found.reduce((most, offset) => Math.max(most, offset), 0);
  // A running machine's file may have grown since it was opened.
  if (last >= length && last >= fstatSync(fd).size)
    throw new Error('it is damaged: its first table leads out of the file');
  return found;
}

/** One cluster that a qcow2 stores. */
export interface StoredCluster {
  readonly offset: number;
  /** Bytes in the file. */
  readonly length: number;
  readonly compressed: boolean;
  /** Bit by bit, which of its 32 parts are there; all of them, without extended L2. */
  readonly parts: number;
}

/** Calls back for each cluster that a second table names. */
export async function visitSecondTable(
  file: FileHandle,
  { clusterSize, extendedL2 }: Qcow2Header,
  offset: number,
  visit: (cluster: StoredCluster) => void,
): Promise<void> {
  const { buffer: bytes, bytesRead } = await file.read(Buffer.alloc(clusterSize), 0, clusterSize, offset);
  if (bytesRead < clusterSize) throw new Error(endsEarly);
  const entrySize = extendedL2 ? 16 : 8;
  for (let at = 0; at < clusterSize; at += entrySize) {
    const high = bytes.readUInt32BE(at);
    if ((high & compressedBit) !== 0) visit(compressedCluster(bytes, at, clusterSize));
    else {
      const place = offsetAt(bytes, at);
      // Bit 0: reads as zeros, whatever lies there. With subclusters these have bits of their own.
      const zero = !extendedL2 && (bytes.readUInt32BE(at + 4) & 1) !== 0;
      const parts = extendedL2 ? bytes.readUInt32BE(at + 12) : zero ? 0 : 0xffffffff;
      if (place !== 0) visit({ offset: place, length: clusterSize, compressed: false, parts });
    }
  }
}

/**
 * The part of the first table that the guest's own state of the disk takes. What lies behind it is memory that is just being
 * saved, or was: a running QEMU writes down only later that it belongs to the snapshot alone.
 */
export function guestTable({ virtual, clusterSize, extendedL2, active }: Qcow2Header): Table {
  const perTable = clusterSize / (extendedL2 ? 16 : 8);
  const entries = Math.min(active.entries, Math.ceil(virtual / clusterSize / perTable));
  return { offset: active.offset, entries };
}

/** Calls back for each cluster that a state of the disk holds in this file. */
export async function visitClusters(
  file: FileHandle,
  header: Qcow2Header,
  table: Table,
  visit: (cluster: StoredCluster) => void,
): Promise<void> {
  for (const offset of readFirstTable(file.fd, header, table)) {
    await visitSecondTable(file, header, offset, visit);
  }
}

/** Bit 62, in the upper half of an entry. */
const compressedBit = 0x40000000;

/** A compressed cluster begins anywhere and says how many sectors of 512 bytes it reaches into. */
function compressedCluster(bytes: Buffer, at: number, clusterSize: number): StoredCluster {
  const bits = BigInt(62 - (Math.log2(clusterSize) - 8));
  const entry = bytes.readBigUInt64BE(at) & ((1n << 62n) - 1n);
  const offset = Number(entry & ((1n << bits) - 1n));
  const sectors = Number(entry >> bits) + 1;
  return { offset, length: sectors * 512 - (offset % 512), compressed: true, parts: 0xffffffff };
}

/** The offset in an entry of either table: bits 9 to 55. */
function offsetAt(bytes: Buffer, at: number): number {
  return (bytes.readUInt32BE(at) & 0x00ffffff) * 2 ** 32 + ((bytes.readUInt32BE(at + 4) & ~511) >>> 0);
}
