import type { Context } from '../host/context.ts';
import type { StorageDrive } from '../qemu/storage-argv.ts';
import type { InstanceName } from '../core/names.ts';
import { isShare, type DiskDevice, type ShareDevice, type StorageDevice } from '../template/storage.ts';
import { deviceOf, fileNodeOf, nodeOf, placeOf } from './storage-places.ts';

/** A machine's storage as QEMU is to have it. */
export function drivesOf(
  ctx: Pick<Context, 'paths'>,
  instance: InstanceName,
  storage: readonly StorageDevice[] = [],
): StorageDrive[] {
  return storage.map((device) =>
    isShare(device) ? shareDrive(ctx, instance, device) : diskDrive(ctx, instance, device),
  );
}

function diskDrive(ctx: Pick<Context, 'paths'>, instance: InstanceName, disk: DiskDevice): StorageDrive {
  const { backingFile, backingFormat = 'qcow2', format } = disk;
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
  };
}

function shareDrive(ctx: Pick<Context, 'paths'>, instance: InstanceName, share: ShareDevice): StorageDrive {
  const { name, path, mountTag, protocol, securityModel, readonly } = share;
  const way =
    protocol === '9p'
      ? ({ protocol, securityModel } as const)
      : ({ protocol, socket: ctx.paths.instance(instance).share(name).socket } as const);
  return { kind: 'share', name, path, mountTag, readonly, way, device: deviceOf(share) };
}
