import { bytes, MiB, type Bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { readDisk, readSize, readText, show, type Reader } from './values.ts';

// Readers of the values of `storage:`, in the manner of values.ts.

/** What fits a disk's serial number in the guest, and a node's name in QEMU. */
const namePattern = /^[a-z0-9]([a-z0-9_-]{0,18}[a-z0-9])?$/;

/** Reads the name of a disk or share. */
export function readStorageName(input: unknown): string {
  const text = readText(input);
  if (!namePattern.test(text)) {
    throw new Failure(
      'usage',
      `${show(text)} is not a name for storage: 1 to 20 small letters, digits and inner - or _`,
    );
  }
  if (text === 'root') throw new Failure('usage', '"root" is the name of the disk with the root file system');
  return text;
}

/** Reads the path of a file or folder of the host; `~/` is the user's home. */
export function readHostPath(input: unknown): string {
  const text = readText(input);
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1];
  if (scheme !== undefined)
    throw new Failure('usage', `${show(text)} is an address, not a path of this host`);
  if (/^~[^/]/.test(text)) {
    throw new Failure('usage', `${show(text)} names somebody's home; write that path in full`);
  }
  return text;
}

/** A tag is 31 bytes at most in the device of a 9p share, and a word of mount's command line. */
export function readMountTag(input: unknown): string {
  const text = readText(input);
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/.test(text)) return text;
  throw new Failure('usage', `${show(text)} is not a tag: 1 to 31 letters, digits and any of . _ -`);
}

/** What a share would hide, and the guest can't do without. */
const guestsOwn =
  /^\/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|run|sbin|sys|tmp|usr|var)(\/(lib|run|tmp))?$/;

/** Reads where in the guest a share is mounted. */
export function readMountPoint(input: unknown): string {
  const text = readText(input);
  const parts = text.split('/').slice(1);
  if (!/^(\/[A-Za-z0-9._@+-]+)+$/.test(text) || parts.some((part) => part === '.' || part === '..')) {
    throw new Failure(
      'usage',
      `${show(text)} is not a place to mount at: an absolute path of letters, digits and any of . _ @ + - /`,
    );
  }
  if (Buffer.byteLength(text) > 255) throw new Failure('usage', 'must not have more than 255 bytes');
  if (guestsOwn.test(text)) throw new Failure('usage', `${text} is the guest's own; take one below /mnt`);
  return text;
}

/** QEMU's own limits. */
const [smallestCluster, largestCluster] = [512, 2 * MiB];

/** Reads the cluster size of a qcow2. */
export const readClusterSize: Reader<Bytes> = (input) => {
  const size = readSize(input);
  const isPower = Number.isInteger(Math.log2(size));
  if (isPower && size >= smallestCluster && size <= largestCluster) return size;
  throw new Failure('usage', `${show(input)} is not a power of two from 512 to 2MiB`);
};

/** Reads the virtual size of a disk. */
export const readStorageSize: Reader<Bytes> = (input) => {
  const size = readDisk(input);
  // Far more than any host has, and what QEMU still takes at the smallest clusters that zfsdev chooses itself.
  if (size > 64 * 2 ** 40) throw new Failure('usage', 'must be at most 64TiB');
  return bytes(size);
};
