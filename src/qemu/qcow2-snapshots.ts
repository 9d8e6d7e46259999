import { guestTable, visitClusters, withQcow2 } from './qcow2.ts';

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
