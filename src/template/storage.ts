import * as v from 'valibot';
import { bytes, type Bytes } from '../core/bytes.ts';

/** Where a disk is plugged in; `none`: QEMU has it as a block node, and the guest does not see it. */
export type DiskInterface = 'virtio' | 'sata' | 'ide' | 'scsi' | 'none';

/** How a qcow2 is made; without effect on one that is there already. */
export interface Qcow2Format {
  /** Bytes, a power of two from 512 to 2 MiB; 64 KiB with extended L2 entries without. */
  readonly clusterSize?: Bytes;
  /** Of clusters that are written compressed, by `compact` and exports. */
  readonly compression?: 'zlib' | 'zstd';
  /** Encrypted by LUKS: the absolute path of a file, of the owner alone, with the passphrase. */
  readonly passphraseFile?: string;
}

/** A disk of a machine beside the one with the root file system. */
export interface DiskDevice {
  readonly type: 'qcow2' | 'raw';
  /** Unique in the machine, 20 bytes at most, as it is the disk's serial number in the guest; never `root`. */
  readonly name: string;
  /** Absolute path; one in the instance's own folder without. That one goes with the instance, any other one stays. */
  readonly file?: string;
  /** Virtual size in bytes; without for a file that must be there already, and for that of a backing file. */
  readonly size?: Bytes;
  readonly interface: DiskInterface;
  readonly media: 'disk' | 'cdrom';
  readonly readonly: boolean;
  /** What the guest discards is given back to the host. */
  readonly discard: boolean;
  /** Absolute path of what a qcow2 stands on; never written to. */
  readonly backingFile?: string;
  readonly backingFormat?: 'qcow2' | 'raw';
  readonly format?: Qcow2Format;
  /** It belongs to the machine and is not plugged in, neither now nor at the next start. */
  readonly detached?: true;
  /** Where it is plugged in, once that is decided: the PCI port of a virtio disk, the number on the bus of a scsi disk. */
  readonly port?: number;
}

/** A folder of the host that the guest sees. */
export interface ShareDevice {
  readonly type: 'virtfs';
  readonly name: string;
  /** Absolute path on the host. */
  readonly path: string;
  readonly mountTag: string;
  readonly protocol: '9p' | 'virtiofs';
  readonly securityModel: 'mapped-xattr' | 'mapped-file' | 'passthrough' | 'none';
  readonly readonly: boolean;
  /** Absolute path in the guest where it is mounted. */
  readonly mountAt: string;
}

export type StorageDevice = DiskDevice | ShareDevice;

/** True for a folder of the host. */
export function isShare(device: StorageDevice): device is ShareDevice {
  return device.type === 'virtfs';
}

/** The disks among a machine's storage, in the order of the template. */
export function disksAmong(storage: readonly StorageDevice[] | undefined): DiskDevice[] {
  return (storage ?? []).filter((device): device is DiskDevice => !isShare(device));
}

/** What a machine has when it starts: all of its storage but disks that were unplugged. */
export function attachedStorage(storage: readonly StorageDevice[] | undefined): StorageDevice[] {
  return (storage ?? []).filter((device) => isShare(device) || device.detached !== true);
}

/** The shares among a machine's storage, in the order of the template. */
export function sharesAmong(storage: readonly StorageDevice[] | undefined): ShareDevice[] {
  return (storage ?? []).filter(isShare);
}

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.transform(bytes));
const text = v.pipe(v.string(), v.nonEmpty());

const disk = v.strictObject({
  type: v.picklist(['qcow2', 'raw']),
  name: text,
  file: v.exactOptional(text),
  size: v.exactOptional(size),
  interface: v.picklist(['virtio', 'sata', 'ide', 'scsi', 'none']),
  media: v.picklist(['disk', 'cdrom']),
  readonly: v.boolean(),
  discard: v.boolean(),
  backingFile: v.exactOptional(text),
  backingFormat: v.exactOptional(v.picklist(['qcow2', 'raw'])),
  format: v.exactOptional(
    v.strictObject({
      clusterSize: v.exactOptional(size),
      compression: v.exactOptional(v.picklist(['zlib', 'zstd'])),
      passphraseFile: v.exactOptional(text),
    }),
  ),
  detached: v.exactOptional(v.literal(true)),
  port: v.exactOptional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
});

const share = v.strictObject({
  type: v.literal('virtfs'),
  name: text,
  path: text,
  mountTag: text,
  protocol: v.picklist(['9p', 'virtiofs']),
  securityModel: v.picklist(['mapped-xattr', 'mapped-file', 'passthrough', 'none']),
  readonly: v.boolean(),
  mountAt: text,
});

/** Storage as a `spec.json` has it: only its form is checked, as with the rest of it. */
export const storageSchema: v.GenericSchema<unknown, StorageDevice[]> = v.array(
  v.variant('type', [disk, share]),
);
