import type { FileHandle } from 'node:fs/promises';
import { withFile } from '../host/files.ts';

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

interface Header extends Qcow2 {
  readonly extendedL2: boolean;
  readonly active: Table;
  readonly saved: readonly Table[];
}

const magic = 0x514649fb;
const backingFormatExtension = 0xe2792aca;
const offsetMask = 0x00fffffffffffe00n;
const compressedFlag = 1n << 62n;
/** Far beyond what QEMU writes; a file that says more is damaged. */
const maxTable = 32 * 1024 * 1024;
const maxSnapshots = 65_536;

/** What a disk file is, and what it tells of itself if it is a qcow2. */
export type DiskContent =
  { readonly kind: 'qcow2'; readonly qcow2: Qcow2 } | { readonly kind: Exclude<DiskKind, 'qcow2'> };

/** @throws Failure `files` if it can't be read, or begins as a qcow2 and isn't one that makes sense. */
export async function readDisk(path: string): Promise<DiskContent> {
  return withFile(path, async (file) => {
    const start = await read(file, 0, 4, true);
    if (start.length === 4 && start.readUInt32BE(0) === magic) {
      const { virtual, clusterSize, backing, backingFormat, snapshots, corrupt } = await readHeader(file);
      const optional = {
        ...(backing === undefined ? {} : { backing }),
        ...(backingFormat === undefined ? {} : { backingFormat }),
      };
      return { kind: 'qcow2', qcow2: { virtual, clusterSize, snapshots, corrupt, ...optional } };
    }
    const volume = await read(file, 0x8001, 5, true);
    return { kind: volume.toString('latin1') === 'CD001' ? 'iso' : 'raw' };
  });
}

/**
 * Bytes of a qcow2 that only its snapshots hold: what deleting all of them would make free inside the file, memory
 * saved with them included. An upper bound, as a cluster counts in full.
 */
export async function heldBySnapshots(path: string): Promise<number> {
  return withFile(path, async (file) => {
    const header = await readHeader(file);
    if (header.saved.length === 0) return 0;
    const active = new Set<string>();
    await visitClusters(file, header, header.active, (key) => active.add(key));
    return sizeOfSnapshots(file, header, (key) => !active.has(key));
  });
}

/**
 * Bytes of a qcow2 that its snapshots stand on, whoever else does: what the file can take beyond its bound without them,
 * once the guest has written everything anew. 0 without snapshots, and for a file that isn't a qcow2.
 */
export async function neededBySnapshots(path: string): Promise<number> {
  const content = await readDisk(path);
  if (content.kind !== 'qcow2' || content.qcow2.snapshots.length === 0) return 0;
  return withFile(path, async (file) => sizeOfSnapshots(file, await readHeader(file), () => true));
}

async function sizeOfSnapshots(
  file: FileHandle,
  header: Header,
  counts: (key: string) => boolean,
): Promise<number> {
  const clusters = new Map<string, number>();
  for (const table of header.saved) {
    await visitClusters(file, header, table, (key, length) => {
      if (counts(key)) clusters.set(key, length);
    });
  }
  return [...clusters.values()].reduce((sum, length) => sum + length, 0);
}

async function readHeader(file: FileHandle): Promise<Header> {
  const start = await read(file, 0, 104, true);
  if (start.length < 72 || start.readUInt32BE(0) !== magic) throw new Error('it is not a qcow2');
  const version = start.readUInt32BE(4);
  const clusterBits = start.readUInt32BE(20);
  if (version < 2 || version > 3 || clusterBits < 9 || clusterBits > 21) {
    throw new Error(`it is a qcow2 of a kind that QEMU doesn't know (version ${version})`);
  }
  const features = version === 3 ? start.readBigUInt64BE(72) : 0n;
  const backingOffset = number(start, 8);
  const backingLength = start.readUInt32BE(16);
  if (backingLength > 1023) throw new Error('its backing file has a name of more than 1023 bytes');
  const headerLength = version === 3 ? start.readUInt32BE(100) : 72;
  const [backing, backingFormat, saved] = await Promise.all([
    backingOffset === 0 ? undefined : read(file, backingOffset, backingLength),
    readBackingFormat(file, headerLength),
    readSnapshots(file, number(start, 64), start.readUInt32BE(60)),
  ]);
  return {
    virtual: number(start, 24),
    clusterSize: 2 ** clusterBits,
    ...(backing === undefined ? {} : { backing: backing.toString('utf8') }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    snapshots: saved.map(({ snapshot }) => snapshot),
    corrupt: (features & 2n) !== 0n,
    extendedL2: (features & 16n) !== 0n,
    active: { offset: number(start, 40), entries: start.readUInt32BE(36) },
    saved: saved.map(({ table }) => table),
  };
}

async function readBackingFormat(file: FileHandle, from: number): Promise<string | undefined> {
  const bytes = await read(file, from, 4096, true);
  for (let at = 0; at + 8 <= bytes.length;) {
    const [type, length] = [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)];
    if (type === 0) return undefined;
    if (type === backingFormatExtension) return bytes.toString('utf8', at + 8, at + 8 + length);
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return undefined;
}

async function readSnapshots(
  file: FileHandle,
  offset: number,
  count: number,
): Promise<{ snapshot: Qcow2Snapshot; table: Table }[]> {
  if (count > maxSnapshots) throw new Error(`it says that it has ${count} snapshots`);
  const found = [];
  for (let at = offset, i = 0; i < count; i += 1) {
    const fixed = await read(file, at, 40);
    const [idLength, nameLength] = [fixed.readUInt16BE(12), fixed.readUInt16BE(14)];
    const extraLength = fixed.readUInt32BE(36);
    if (extraLength > 1024) throw new Error('an entry of its snapshot table makes no sense');
    const rest = await read(file, at + 40, extraLength + idLength + nameLength);
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

/** Calls back for each cluster that a state of the disk holds in this file: a key of its place, and its bytes there. */
async function visitClusters(
  file: FileHandle,
  { clusterSize, extendedL2 }: Header,
  table: Table,
  visit: (key: string, length: number) => void,
): Promise<void> {
  if (table.entries * 8 > maxTable) throw new Error('its first table is larger than any disk needs');
  const first = await read(file, table.offset, table.entries * 8);
  const entrySize = extendedL2 ? 16 : 8;
  for (let i = 0; i < table.entries; i += 1) {
    const offset = Number(first.readBigUInt64BE(i * 8) & offsetMask);
    if (offset === 0) continue;
    const second = await read(file, offset, clusterSize);
    for (let at = 0; at < clusterSize; at += entrySize) {
      const entry = second.readBigUInt64BE(at);
      if ((entry & compressedFlag) !== 0n) visitCompressed(entry, clusterSize, visit);
      else if ((entry & offsetMask) !== 0n) visit(String(entry & offsetMask), clusterSize);
    }
  }
}

/** A compressed cluster begins anywhere and says how many sectors of 512 bytes it reaches into. */
function visitCompressed(
  entry: bigint,
  clusterSize: number,
  visit: (key: string, length: number) => void,
): void {
  const bits = BigInt(62 - (Math.log2(clusterSize) - 8));
  const offset = entry & ((1n << bits) - 1n);
  const sectors = Number((entry & (compressedFlag - 1n)) >> bits) + 1;
  visit(`${offset}c`, sectors * 512 - Number(offset & 511n));
}

function number(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64BE(at));
}

async function read(file: FileHandle, offset: number, length: number, mayBeShort = false): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
  if (bytesRead < length && !mayBeShort) throw new Error('it ends too early');
  return buffer.subarray(0, bytesRead);
}
