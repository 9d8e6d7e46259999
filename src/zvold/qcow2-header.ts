import { ZvolError } from './errors.ts';

/** So much of a file's beginning tells what it is. */
export const headerLength = 104;

/** Features of version 3 that a reader has to know; of these zvold takes dirty tables and compression of other kinds. */
const incompatible = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n };

/** Largest virtual size that is believed: what a volume can have, and far more than any pool. */
const largest = 2n ** 53n;

/** True for the beginning of a qcow2. */
export function isQcow2(start: Buffer): boolean {
  return start.length >= 4 && start.readUInt32BE(0) === 0x514649fb;
}

/**
 * Looks at a qcow2's header before anything else of it is read: one that leads to other files, is encrypted, or makes no
 * sense is refused.
 * @returns its virtual size in bytes. @throws ZvolError `INVALID_ARGUMENT`
 */
export function checkQcow2(start: Buffer): number {
  const refuse = (why: string): ZvolError =>
    new ZvolError('INVALID_ARGUMENT', `the qcow2 is not taken: ${why}`);
  if (start.length < 72) throw refuse('it ends within its header');
  const version = start.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw refuse(`it is of version ${version}`);
  if (start.readBigUInt64BE(8) !== 0n)
    throw refuse('it stands on a backing file, which could be any file of this machine');
  const clusterBits = start.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21)
    throw refuse(`its clusters of 2^${clusterBits} bytes make no sense`);
  if (start.readUInt32BE(32) !== 0) throw refuse('it is encrypted');
  if (version === 3) checkFeatures(start, refuse);
  const size = start.readBigUInt64BE(24);
  if (size === 0n || size > largest) throw refuse(`its size of ${size} bytes makes no sense`);
  return Number(size);
}

function checkFeatures(start: Buffer, refuse: (why: string) => ZvolError): void {
  if (start.length < headerLength) throw refuse('it ends within its header');
  const features = start.readBigUInt64BE(72);
  if (features & incompatible.dataFile)
    throw refuse('its content lies in another file, which could be any file of this machine');
  if (features & incompatible.corrupt) throw refuse('QEMU has marked it as corrupt');
  const known = Object.values(incompatible).reduce((all, bit) => all | bit, 0n);
  if (features & ~known) throw refuse('it has features that nobody knew when zvold was made');
}
