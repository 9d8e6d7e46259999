import { readSync, type Stats } from 'node:fs';

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

/** A table of cluster offsets: where it lies and how many entries it has. */
export interface Table {
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

export const magic = 0x514649fb;
const backingFormatExtension = 0xe2792aca;
/** QEMU's own limits; a file that says more is damaged, and nothing of that size is ever read. */
const maxSnapshots = 65_536;
const maxSnapshotTable = 64 * 1024 * 1024;
/** Bits of what a reader must understand: dirty, corrupt, data elsewhere, compression, extended L2. */
const corruptBit = 2n;
const externalBit = 4n;
const extendedL2Bit = 16n;
const knownBits = 31n;

/** Where QEMU puts all of a header: its extensions, and the name of the backing file. */
export const startLength = 4096;

/** Reads a header and the snapshot table. @throws Error if it makes no sense */
export function readHeader(fd: number, { size }: Stats, known?: Buffer): Qcow2Header {
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

function number(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64BE(at));
}

export const endsEarly = 'it ends too early';

/** Reads so many bytes of a file. @throws Error if it ends before, unless that may be */
export function read(fd: number, offset: number, length: number, mayBeShort = false): Buffer {
  const buffer = Buffer.alloc(length);
  const bytesRead = readSync(fd, buffer, 0, length, offset);
  if (bytesRead < length && !mayBeShort) throw new Error(endsEarly);
  return buffer.subarray(0, bytesRead);
}
