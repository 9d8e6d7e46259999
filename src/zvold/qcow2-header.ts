import { ZvolError } from './errors.ts';

/** So much of a file's beginning tells what it is. */
export const headerLength = 104;

/** Features of version 3 that a reader has to know; of these zvold takes dirty tables and compression of other kinds. */
const incompatible = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n };

/** Largest virtual size that is believed: what a volume can have, and far more than any pool. */
const largest = 2n ** 53n;

/** Bytes of a first table beyond which QEMU opens no image (QCOW_MAX_L1_SIZE); with 64 KiB clusters it is 2 PiB's. */
const longestFirstTable = 32 * 2 ** 20;

/** What a header says that is taken. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  /** Bytes of the content. */
  readonly size: number;
  readonly clusterSize: number;
  /** Where the first table lies, and its number of entries. */
  readonly firstTable: { readonly offset: number; readonly entries: number };
  /** Entries of second tables have a part that tells 32 subclusters apart. */
  readonly subclusters: boolean;
}

export function refusal(why: string): ZvolError {
  return new ZvolError('INVALID_ARGUMENT', `the qcow2 is not taken: ${why}`);
}

/** True for the beginning of a qcow2. */
export function isQcow2(start: Buffer): boolean {
  return start.length >= 4 && start.readUInt32BE(0) === 0x514649fb;
}

/**
 * Looks at a qcow2's header before anything else of it is read: one that leads to other files, is encrypted, or makes no
 * sense is refused.
 * @throws ZvolError `INVALID_ARGUMENT`
 */
export function checkQcow2(start: Buffer): Qcow2Header {
  if (start.length < 72) throw refusal('it ends within its header');
  const version = start.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw refusal(`it is of version ${version}`);
  if (start.readBigUInt64BE(8) !== 0n)
    throw refusal('it stands on a backing file, which could be any file of this machine');
  const clusterBits = start.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21)
    throw refusal(`its clusters of 2^${clusterBits} bytes make no sense`);
  if (start.readUInt32BE(32) !== 0) throw refusal('it is encrypted');
  const features = version === 3 ? featuresOf(start) : 0n;
  const size = start.readBigUInt64BE(24);
  if (size === 0n || size > largest) throw refusal(`its size of ${size} bytes makes no sense`);
  const clusterSize = 2 ** clusterBits;
  const subclusters = (features & incompatible.extendedL2) !== 0n;
  const firstTable = firstTableOf(start, clusterSize);
  // Each entry of it leads to a table of one cluster, whose entries stand for a cluster each.
  const perTable = clusterSize / (subclusters ? 16 : 8);
  const wanted = Math.ceil(Math.ceil(Number(size) / clusterSize) / perTable);
  if (firstTable.entries < wanted)
    throw refusal(`its first table has ${firstTable.entries} entries, and its size wants ${wanted}`);
  return { version, size: Number(size), clusterSize, firstTable, subclusters };
}

function featuresOf(start: Buffer): bigint {
  if (start.length < headerLength) throw refusal('it ends within its header');
  const features = start.readBigUInt64BE(72);
  if (features & incompatible.dataFile)
    throw refusal('its content lies in another file, which could be any file of this machine');
  if (features & incompatible.corrupt) throw refusal('QEMU has marked it as corrupt');
  const known = Object.values(incompatible).reduce((all, bit) => all | bit, 0n);
  if (features & ~known) throw refusal('it has features that nobody knew when zvold was made');
  return features;
}

function firstTableOf(start: Buffer, clusterSize: number): Qcow2Header['firstTable'] {
  const [entries, offset] = [start.readUInt32BE(36), start.readBigUInt64BE(40)];
  if (entries * 8 > longestFirstTable)
    throw refusal(`its first table of ${entries} entries is larger than any that QEMU reads`);
  if (offset > largest || offset % BigInt(clusterSize) !== 0n || (offset === 0n && entries > 0))
    throw refusal(`its first table lies at ${offset}, which makes no sense`);
  return { offset: Number(offset), entries };
}
