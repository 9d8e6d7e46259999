import { ZvolError } from './errors.ts';

const pattern = /^[A-Za-z0-9][A-Za-z0-9_.:-]*$/;

/** True for a word that can be the name of a volume in a pool. */
export function isName(word: string): boolean {
  return pattern.test(word);
}

/** True for a word that ZFS can have as the name of a volume in a pool, as one that was made by hand may be called. */
export function canBeNamed(word: string): boolean {
  return /^[A-Za-z0-9_.: -]+$/.test(word) && word !== '.' && word !== '..';
}

/** What udev calls the device of a volume, below the folder of all of them: it has no blanks in its names. */
export function deviceName(dataset: string): string {
  return dataset.replaceAll(' ', '+');
}

/** What an id begins with that nobody gave: ZFS's own number goes on. */
export const ownIdPrefix = 'guid-';

/** ZFS takes no more in a full name, its ending zero included. */
const longestFullName = 255;

/**
 * Checks a name that becomes part of a dataset's.
 * @param what what it names, for the error.
 * @param prefix what stands before it in the full name, which has its limit.
 * @throws ZvolError `INVALID_ARGUMENT`
 */
export function checkName(what: string, name: string, prefix: string): void {
  if (!pattern.test(name)) {
    throw new ZvolError(
      'INVALID_ARGUMENT',
      `the name of ${what}, "${name}", must begin with a letter or a digit, and go on with those or any of _ . : -`,
    );
  }
  const length = Buffer.byteLength(prefix) + name.length;
  if (length > longestFullName)
    throw new ZvolError(
      'INVALID_ARGUMENT',
      `the name of ${what} is too long: ${length} characters with its pool, and ZFS takes ${longestFullName}`,
    );
}

/** An id goes into a property and comes back in lists. @throws ZvolError `INVALID_ARGUMENT` */
export function checkId(id: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/.test(id))
    throw new ZvolError(
      'INVALID_ARGUMENT',
      `the id "${id}" is not made of at most 128 letters, digits and _ . : -`,
    );
  if (id.startsWith(ownIdPrefix))
    throw new ZvolError(
      'INVALID_ARGUMENT',
      `the id "${id}" begins as those that zvold gives to what has none`,
    );
}

/** Sizes of blocks that ZFS has for volumes, and what is taken without one. */
export const defaultBlockSize = 16_384;

/** @throws ZvolError `INVALID_ARGUMENT` */
export function checkBlockSize(size: number): void {
  if (!Number.isInteger(Math.log2(size)) || size < 4096 || size > 131_072)
    throw new ZvolError('INVALID_ARGUMENT', `volblocksize ${size} is no power of two from 4096 to 131072`);
}

/** Rounded up to whole blocks. @throws ZvolError `INVALID_ARGUMENT` for nothing, or more than there can be */
export function alignSize(bytes: number, blockSize: number): number {
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw new ZvolError('INVALID_ARGUMENT', `${bytes} bytes are no size of a volume`);
  const aligned = Math.ceil(bytes / blockSize) * blockSize;
  if (!Number.isSafeInteger(aligned))
    throw new ZvolError('INVALID_ARGUMENT', `${bytes} bytes are more than a volume can have`);
  return aligned;
}
