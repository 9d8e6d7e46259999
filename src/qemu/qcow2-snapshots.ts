import { open, type FileHandle } from 'node:fs/promises';
import { Failure, messageOf } from '../core/errors.ts';
import { withFile } from '../host/files.ts';
import { guestTable, visitClusters } from './qcow2-clusters.ts';
import { readHeader, type Qcow2Header } from './qcow2-header.ts';
import { readDisk, withQcow2 } from './qcow2.ts';

/** What one snapshot takes inside its file, in bytes; a cluster counts in full. */
export interface SnapshotSize {
  /** All that it stands on, the memory saved with it included. */
  readonly all: number;
  /** What nothing but it stands on: what deleting it gives back. */
  readonly alone: number;
}

/** The sizes of all snapshots in a qcow2, by their ids. @throws Failure `files` as `readDisk` */
export async function snapshotSizes(path: string): Promise<Map<string, SnapshotSize>> {
  return withQcow2(path, async (file, header) => {
    const users = new Map<number, number>();
    const states: Map<number, number>[] = [];
    for (const table of [guestTable(header), ...header.saved]) {
      const clusters = new Map<number, number>();
      await visitClusters(file, header, table, ({ offset, length }) => clusters.set(offset, length));
      for (const offset of clusters.keys()) users.set(offset, (users.get(offset) ?? 0) + 1);
      states.push(clusters);
    }
    return new Map(
      header.snapshots.map(({ id }, i) => {
        let [all, alone] = [0, 0];
        for (const [offset, length] of states[i + 1] ?? []) {
          all += length;
          if (users.get(offset) === 1) alone += length;
        }
        return [id, { all, alone }];
      }),
    );
  });
}

/**
 * Bytes that the next snapshot of a qcow2 would make its own: what the guest's state holds and no snapshot holds yet. By so
 * much more the file can grow once the guest writes all of it anew.
 */
export async function notYetInSnapshots(path: string): Promise<number> {
  return withQcow2(path, async (file, header) => {
    const held = new Set<number>();
    for (const table of header.saved)
      await visitClusters(file, header, table, ({ offset }) => held.add(offset));
    const own = new Map<number, number>();
    await visitClusters(file, header, guestTable(header), ({ offset, length }) => {
      if (!held.has(offset)) own.set(offset, length);
    });
    return [...own.values()].reduce((sum, length) => sum + length, 0);
  });
}

/**
 * Takes saved memory out of the guest's own state of a disk that nobody uses; gives false if there is none. QEMU leaves it
 * there when memory was loaded, or when saving it was cut off, and no command of QEMU's takes it away: its room would be
 * lost. Only entries behind the end of the virtual disk are cleared, so that no data of the guest is ever in reach. What
 * they led to is a leak afterwards, unless a snapshot has it too, and `repairLeaks` frees it.
 */
export async function clearMemoryLeft(path: string): Promise<boolean> {
  const place = await withQcow2(path, (_, header) => {
    const { entries } = guestTable(header);
    const left = header.corrupt ? 0 : header.active.entries - entries;
    return Promise.resolve({ position: header.active.offset + entries * 8, length: left * 8 });
  });
  if (place.length <= 0) return false;
  try {
    const file = await open(path, 'r+');
    try {
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(place.length), ...place });
      if (bytesRead < place.length || buffer.every((byte) => byte === 0)) return false;
      await file.write(Buffer.alloc(place.length), 0, place.length, place.position);
      await file.sync();
      return true;
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new Failure('files', `${path} can't be written to: ${messageOf(error)}`, { cause: error });
  }
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
