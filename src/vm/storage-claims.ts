import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Claim } from '../budget/admission.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { actualSize, exists } from '../host/files.ts';
import { compactedFile } from '../host/paths.ts';
import { leadsTo } from '../host/system-folders.ts';
import { qcow2Bound } from '../qemu/img-create.ts';
import { neededBySnapshots } from '../qemu/qcow2-snapshots.ts';
import { readDisk } from '../qemu/qcow2.ts';
import { disksAmong, type DiskDevice, type StorageDevice } from '../template/storage.ts';
import { placeOf } from './storage-places.ts';

/**
 * How far the disks of a machine's storage can grow, whether they are there or are still to be made; wherever they lie. One that
 * is only read doesn't.
 */
export async function storageClaims(
  ctx: Context,
  { name, storage }: { readonly name: InstanceName; readonly storage?: readonly StorageDevice[] },
): Promise<Claim[]> {
  const growing = disksAmong(storage).filter((disk) => !disk.readonly);
  return (
    await Promise.all(growing.map((disk) => claimsOf(name, disk, leadsTo(placeOf(ctx, name, disk)))))
  ).flat();
}

async function claimsOf(name: InstanceName, disk: DiskDevice, file: string): Promise<Claim[]> {
  const path = nearestFolder(dirname(file));
  const what = `the disk "${disk.name}" of ${name}`;
  const allocated = sizeOn(file);
  const bound = boundOf(disk, file);
  if (disk.type === 'raw') return [{ what, path, bound, allocated }];
  // Of a running machine the tables may not be readable at this moment; a damaged disk can't be written to.
  const snapshots = await neededBySnapshots(file).catch(() => 0);
  const copy = compactedFile(file);
  return [
    { what, path, bound: bound + snapshots, allocated },
    ...(sizeOn(copy) > 0
      ? [
          {
            what: `the compacted ${what.slice(4)} (temporary)`,
            path,
            bound: allocated,
            allocated: sizeOn(copy),
          },
        ]
      : []),
  ];
}

/** By what the file says, where there is one: it may be larger than its template wants. */
function boundOf(disk: DiskDevice, file: string): number {
  const virtual = virtualSize(file, disk.type) ?? disk.size ?? sizeOfBacking(disk) ?? 0;
  if (disk.type === 'raw') return virtual;
  return qcow2Bound(virtual, clusterSizeOf(file) ?? disk.format?.clusterSize);
}

function sizeOfBacking({ backingFile, backingFormat }: DiskDevice): number | undefined {
  return backingFile === undefined ? undefined : virtualSize(backingFile, backingFormat);
}

/** What the guest sees of a file; undefined if it isn't there, or can't be read. */
export function virtualSize(file: string, type: 'qcow2' | 'raw' = 'qcow2'): number | undefined {
  try {
    if (type === 'raw') return statSync(file).size;
    const content = readDisk(file);
    return content.kind === 'qcow2' ? content.qcow2.virtual : undefined;
  } catch {
    return undefined;
  }
}

function clusterSizeOf(file: string): number | undefined {
  try {
    const content = readDisk(file);
    return content.kind === 'qcow2' ? content.qcow2.clusterSize : undefined;
  } catch {
    return undefined;
  }
}

function sizeOn(file: string): number {
  try {
    return exists(file) ? actualSize(file) : 0;
  } catch {
    return 0;
  }
}

/** A claim must be countable whatever has become of its folder: that of another machine would be refused for it. */
function nearestFolder(folder: string): string {
  for (let at = folder; ; at = dirname(at)) {
    try {
      if (statSync(at).isDirectory()) return at;
    } catch {
      // The next one above.
    }
    if (dirname(at) === at) return at;
  }
}
