import { join } from 'node:path';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import type { DiskDevice } from '../template/storage.ts';

/** Where a disk of a machine's storage lies: its own file, or one in the instance's folder, which goes with it. */
export function placeOf(ctx: Pick<Context, 'paths'>, instance: InstanceName, disk: DiskDevice): string {
  return disk.file ?? join(ctx.paths.instance(instance).disks, `${disk.name}.${disk.type}`);
}

/** Name of a disk's node in a running QEMU, which takes 31 bytes, for snapshots, block jobs and plugging. */
export function nodeOf({ name }: Pick<DiskDevice, 'name'>): string {
  return `disk-${name}`;
}

/** Name of the node of a disk's file. */
export function fileNodeOf(disk: Pick<DiskDevice, 'name'>): string {
  return `${nodeOf(disk)}-file`;
}

/** Id of a disk's or share's device in a running QEMU. */
export function deviceOf({ name }: { readonly name: string }): string {
  return `device-${name}`;
}
