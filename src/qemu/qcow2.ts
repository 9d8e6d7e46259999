import { fstatSync, readSync, type Stats } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { withFile, withFileNow } from '../host/files.ts';

/** What a qcow2 file tells of itself in its header and snapshot table; read directly, without a process. */
export interface Qcow2 {
  /** What the guest sees, in bytes. */
  readonly virtual: number;
  /** Bytes. */
  readonly clusterSize: number;
  /** As written in the file: relative to its folder, if relative. */
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly snapshots: readonly Qcow2Snapshot[];
  /** QEMU found it damaged, and only reads it. */
  readonly corrupt: boolean;
  /** What the guest wrote lies in another file (`data_file`). */
  readonly external: boolean;
  readonly encrypted: boolean;
}

export interface Qcow2Snapshot {
  readonly id: string;
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly date: number;
  /** Bytes of memory saved with it. */
  readonly memory: number;
}

/** What kind of disk a file is, by its content. */
export type DiskKind = 'qcow2' | 'iso' | 'raw';

/** A table of cluster offsets: where it lies and how many entries it has. */
interface Table {
  readonly offset: number;
  readonly entries: number;
}

/** What it takes to find the clusters of a qcow2. */
export interface Qcow2Header extends Qcow2 {
  /** Entries of 16 bytes: an offset, and 32 subclusters that are there, or read as zeros. */
  readonly extendedL2: boolean;
  /** The file's length in bytes. */
  readonly length: number;
  readonly active: Table;
  readonly saved: readonly Table[];
}

const magic = 0x514649fb;
const backingFormatExtension = 0xe2792aca;
/** QEMU's own limits; a file that says more is damaged, and nothing of that size is ever read. */
const maxTable = 32 * 1024 * 1024;
const maxSnapshots = 65_536;
const maxSnapshotTable = 64 * 1024 * 1024;
/** Bits of what a reader must understand: dirty, corrupt, data elsewhere, compression, extended L2. */
const corruptBit = 2n;
const externalBit = 4n;
const extendedL2Bit = 16n;
const knownBits = 31n;

/** What a disk file is, and what it tells of itself if it is a qcow2. */
export type DiskContent =
  { readonly kind: 'qcow2'; readonly qcow2: Qcow2 } | { readonly kind: Exclude<DiskKind, 'qcow2'> };

/** @throws Failure `files` if it can't be read, or begins as a qcow2 and isn't one that makes sense. */
export function readDisk(path: string): DiskContent {
  return withFileNow(path, (fd, found) => {
    const start = read(fd, 0, startLength, true);
    if (start.length >= 4 && start.readUInt32BE(0) === magic) {
      const header = readHeader(fd, found, start);
      checkFirstTable(fd, header);
      return { kind: 'qcow2', qcow2: header };
    }
    const volume = read(fd, 0x8001, 5, true);
    return { kind: volume.toString('latin1') === 'CD001' ? 'iso' : 'raw' };
  });
}

/**
 * Bytes of a qcow2 that only its snapshots hold: what deleting all of them would make free inside the file, memory
 * saved with them included. An upper bound, as a cluster counts in full.
 */
export async function heldBySnapshots(path: string): Promise<number> {
  return withFile(path, async (file, found) => {
    const header = readHeader(file.fd, found);
    if (header.saved.length === 0) return 0;
    const active = new Set<number>();
    await visitClusters(file, header, guestTable(header), ({ offset }) => active.add(offset));
    return sizeOfSnapshots(file, header, (offset) => !active.has(offset));
  });
}

/**
 * Bytes of a qcow2 that its snapshots stand on, whoever else does: what the file can take beyond its bound without them,
 * once the guest has written everything anew. 0 without snapshots, and for a file that isn't a qcow2.
 */
export async function neededBySnapshots(path: string): Promise<number> {
  const content = readDisk(path);
  if (content.kind !== 'qcow2' || content.qcow2.snapshots.length === 0) return 0;
  return withQcow2(path, (file, header) => sizeOfSnapshots(file, header, () => true));
}

async function sizeOfSnapshots(
  file: FileHandle,
  header: Qcow2Header,
  counts: (offset: number) => boolean,
): Promise<number> {
  const clusters = new Map<number, number>();
  for (const table of header.saved) {
    await visitClusters(file, header, table, ({ offset, length }) => {
      if (counts(offset)) clusters.set(offset, length);
    });
  }
  return [...clusters.values()].reduce((sum, length) => sum + length, 0);
}

/** Opens a qcow2 for a look at its clusters. @throws Failure `files` as `readDisk` */
export async function withQcow2<T>(
  path: string,
  work: (file: FileHandle, header: Qcow2Header) => Promise<T>,
): Promise<T> {
  return withFile(path, async (file, found) => {
    const header = readHeader(file.fd, found);
    checkFirstTable(file.fd, header);
    return work(file, header);
  });
}

/** Where QEMU puts all of a header: its extensions, and the name of the backing file. */
const startLength = 4096;

function readHeader(fd: number, { size }: Stats, known?: Buffer): Qcow2Header {
  const start = known ?? read(fd, 0, startLength, true);
  if (start.length < 72 || start.readUInt32BE(0) !== magic) throw new Error('it is not a qcow2');
  const version = start.readUInt32BE(4);
  const clusterBits = start.readUInt32BE(20);
  if (
    version < 2 ||
    version > 3 ||
    clusterBits < 9 ||
    clusterBits > 21 ||
    (version === 3 && start.length < 104)
  ) {
    throw new Error(`it is a qcow2 of a kind that QEMU doesn't know (version ${version})`);
  }
  const features = version === 3 ? start.readBigUInt64BE(72) : 0n;
  if ((features & ~knownBits) !== 0n) throw new Error('it is a qcow2 of a newer QEMU');
  const backingOffset = number(start, 8);
  const backingLength = start.readUInt32BE(16);
  if (backingLength > 1023) throw new Error('its backing file has a name of more than 1023 bytes');
  const headerLength = version === 3 ? start.readUInt32BE(100) : 72;
  const end = backingOffset + backingLength;
  const backing =
    end <= start.length ? start.subarray(backingOffset, end) : read(fd, backingOffset, backingLength);
  const backingFormat = backingFormatIn(start, headerLength);
  const saved = readSnapshots(fd, number(start, 64), start.readUInt32BE(60));
  return {
    virtual: number(start, 24),
    clusterSize: 2 ** clusterBits,
    ...(backingOffset === 0 ? {} : { backing: backing.toString('utf8') }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    snapshots: saved.map(({ snapshot }) => snapshot),
    corrupt: (features & corruptBit) !== 0n,
    external: (features & externalBit) !== 0n,
    extendedL2: (features & extendedL2Bit) !== 0n,
    encrypted: start.readUInt32BE(32) !== 0,
    length: size,
    active: { offset: number(start, 40), entries: start.readUInt32BE(36) },
    saved: saved.map(({ table }) => table),
  };
}

function backingFormatIn(bytes: Buffer, from: number): string | undefined {
  for (let at = from; at + 8 <= bytes.length;) {
    const [type, length] = [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)];
    if (type === 0) return undefined;
    if (type === backingFormatExtension) return bytes.toString('utf8', at + 8, at + 8 + length);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}

function readSnapshots(
  fd: number,
  offset: number,
  count: number,
): { snapshot: Qcow2Snapshot; table: Table }[] {
  if (count > maxSnapshots) throw new Error(`it says that it has ${count} snapshots`);
  const found = [];
  for (let at = offset, i = 0; i < count; i += 1) {
    if (at - offset > maxSnapshotTable) throw new Error('its snapshot table is larger than QEMU allows');
    const fixed = read(fd, at, 40);
    const [idLength, nameLength] = [fixed.readUInt16BE(12), fixed.readUInt16BE(14)];
    const extraLength = fixed.readUInt32BE(36);
    // QEMU gives every snapshot an id; an entry without one is a hole, of which there may be thousands.
    if (extraLength > 1024 || idLength === 0)
      throw new Error('an entry of its snapshot table makes no sense');
    const rest = read(fd, at + 40, extraLength + idLength + nameLength);
    found.push({
      snapshot: {
        id: rest.toString('utf8', extraLength, extraLength + idLength),
        name: rest.toString('utf8', extraLength + idLength),
        date: fixed.readUInt32BE(16) * 1000 + Math.floor(fixed.readUInt32BE(20) / 1e6),
        memory: extraLength >= 8 ? number(rest, 0) : fixed.readUInt32BE(32),
      },
      table: { offset: number(fixed, 0), entries: fixed.readUInt32BE(8) },
    });
    at += Math.ceil((40 + rest.length) / 8) * 8;
  }
  return found;
}

/** @throws Error if the first table can't be the one of this disk, or leads out of the file. */
function checkFirstTable(fd: number, header: Qcow2Header): void {
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

function number(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64BE(at));
}

const endsEarly = 'it ends too early';

function read(fd: number, offset: number, length: number, mayBeShort = false): Buffer {
  const buffer = Buffer.alloc(length);
  const bytesRead = readSync(fd, buffer, 0, length, offset);
  if (bytesRead < length && !mayBeShort) throw new Error(endsEarly);
  return buffer.subarray(0, bytesRead);
}
