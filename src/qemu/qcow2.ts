import type { FileHandle } from 'node:fs/promises';
import { withFile, withFileNow } from '../host/files.ts';
import { checkFirstTable } from './qcow2-clusters.ts';
import { magic, read, readHeader, startLength, type Qcow2, type Qcow2Header } from './qcow2-header.ts';

/** What kind of disk a file is, by its content. */
export type DiskKind = 'qcow2' | 'iso' | 'raw';

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
