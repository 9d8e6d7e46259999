import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { snapshotSizes, type SnapshotSize } from '../qemu/qcow2-snapshots.ts';
import { disksOf, type SnapshotDisk } from '../vm/snapshot-disks.ts';
import { readSnapshots, type Snapshot } from '../vm/snapshot-list.ts';
import { requireInstance } from '../vm/store.ts';

/** A snapshot with what it takes inside its disks, in bytes; without, where that can't be read at this moment. */
export interface SizedSnapshot extends Snapshot {
  /** All that it stands on, memory aside. */
  readonly disk?: number;
  /** What deleting it would give back, its memory included. */
  readonly alone?: number;
}

/**
 * All snapshots of a machine, oldest first, by its disks' own tables: whether it runs, or somebody takes one just now.
 * @throws Failure `not-found`, `files` for a disk that is gone or can't be read
 */
export async function surveySnapshots(
  ctx: Context,
  name: InstanceName,
): Promise<{ snapshots: SizedSnapshot[]; others: readonly string[] }> {
  const { instance, ...found } = await requireInstance(ctx, name);
  if (!instance) {
    throw new Failure(
      'wrong-state',
      `"${name}" is broken: ${found.status === 'broken' ? found.reason : ''}`,
      {
        hint: `zfsdev inspect ${name}`,
      },
    );
  }
  const { disks, others } = await disksOf(ctx, instance);
  const snapshots = await readSnapshots(ctx, name, disks);
  const sizes = new Map(
    await Promise.all(disks.map(async (disk) => [disk.name, await sizesOf(disk)] as const)),
  );
  return { snapshots: snapshots.map((snapshot) => ({ ...snapshot, ...sizeOf(snapshot, sizes) })), others };
}

type Sizes = ReadonlyMap<string, ReadonlyMap<string, SnapshotSize> | undefined>;

/** The tables of a running machine are written to while they are read. */
async function sizesOf({ path }: SnapshotDisk): Promise<Map<string, SnapshotSize> | undefined> {
  return snapshotSizes(path).catch(() => undefined);
}

function sizeOf({ parts }: Snapshot, sizes: Sizes): Pick<SizedSnapshot, 'disk' | 'alone'> {
  let [disk, alone] = [0, 0];
  for (const part of parts) {
    const size = sizes.get(part.disk)?.get(part.id);
    if (!size) return {};
    disk += Math.max(0, size.all - part.memory);
    alone += size.alone;
  }
  return { disk, alone };
}
