import type { Context } from '../host/context.ts';
import type { StorageDisk, StorageDrive, StorageShare } from '../qemu/storage-argv.ts';
import type { InstanceName } from '../core/names.ts';
import {
  attachedStorage,
  isShare,
  type DiskDevice,
  type ShareDevice,
  type StorageDevice,
} from '../template/storage.ts';
import { deviceOf, fileNodeOf, nodeOf, placeOf } from './storage-places.ts';

/** A machine's storage as QEMU is to have it when it starts. */
export function drivesOf(
  ctx: Pick<Context, 'paths'>,
  instance: InstanceName,
  storage: readonly StorageDevice[] = [],
): StorageDrive[] {
  return attachedStorage(storage).map((device) =>
    isShare(device) ? shareDrive(ctx, instance, device) : diskDrive(ctx, instance, device),
  );
}

/** One disk as QEMU is to have it. */
export function diskDrive(
  ctx: Pick<Context, 'paths'>,
  instance: InstanceName,
  disk: DiskDevice,
): StorageDisk {
  const { backingFile, backingFormat = 'qcow2', format, port } = disk;
  return {
    kind: 'disk',
    name: disk.name,
    path: placeOf(ctx, instance, disk),
    format: disk.type,
    interface: disk.interface,
    isCdrom: disk.media === 'cdrom',
    readonly: disk.readonly,
    discard: disk.discard,
    ...(backingFile === undefined ? {} : { backing: { path: backingFile, format: backingFormat } }),
    ...(format?.passphraseFile === undefined ? {} : { passphraseFile: format.passphraseFile }),
    node: nodeOf(disk),
    fileNode: fileNodeOf(disk),
    device: deviceOf(disk),
    ...(port === undefined ? {} : { port }),
  };
}

function shareDrive(ctx: Pick<Context, 'paths'>, instance: InstanceName, share: ShareDevice): StorageShare {
  const { name, path, mountTag, protocol, securityModel, readonly } = share;
  const way =
    protocol === '9p'
      ? ({ protocol, securityModel } as const)
      : ({ protocol, socket: ctx.paths.instance(instance).share(name).socket } as const);
  return { kind: 'share', name, path, mountTag, readonly, way, device: deviceOf(share) };
}
