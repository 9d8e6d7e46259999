import { diskPorts } from './machine.ts';
import { optionString } from './option-string.ts';

/** A disk of a machine beside the one with the root file system, as QEMU is to have it. Every path is absolute. */
export interface StorageDisk {
  readonly kind: 'disk';
  readonly name: string;
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  readonly interface: 'virtio' | 'sata' | 'ide' | 'scsi' | 'none';
  readonly isCdrom: boolean;
  readonly readonly: boolean;
  readonly discard: boolean;
  /** What a qcow2 stands on: its format is never guessed. */
  readonly backing?: { readonly path: string; readonly format: 'qcow2' | 'raw' };
  /** A file with the passphrase of a qcow2 that is encrypted by LUKS. */
  readonly passphraseFile?: string;
  /** Names of the nodes of the disk and of its file, and the id of the device. */
  readonly node: string;
  readonly fileNode: string;
  readonly device: string;
  /** The PCI port of a virtio disk, or the number on its bus of a scsi disk, where that is decided. */
  readonly port?: number;
}

/** A folder of the host that the guest sees. */
export interface StorageShare {
  readonly kind: 'share';
  readonly name: string;
  readonly path: string;
  readonly mountTag: string;
  readonly readonly: boolean;
  readonly way:
    | {
        readonly protocol: '9p';
        readonly securityModel: 'mapped-xattr' | 'mapped-file' | 'passthrough' | 'none';
      }
    | { readonly protocol: 'virtiofs'; readonly socket: string };
  readonly device: string;
}

export type StorageDrive = StorageDisk | StorageShare;

/** One object of QEMU's command line or QMP, as JSON has it. */
export type QemuObject = Readonly<Record<string, unknown>>;

/** Disks on one AHCI controller. */
const ahciPorts = 6;
/** Bus of all disks of interface scsi. */
export const scsiBus = 'scsi0';
const ideBus = 'ide0';

/** The controller of so many disks of interface sata. */
function sataBus(controller: number): string {
  return `sata${controller}`;
}

/** All arguments for a machine's storage; none without. Devices come in the order of the template. */
export function storageArgv(drives: readonly StorageDrive[] = []): string[] {
  const disks = drives.filter((drive) => drive.kind === 'disk');
  const places = placesOf(disks);
  return [
    ...controllers(disks),
    ...drives.flatMap((drive) =>
      drive.kind === 'disk' ? diskArgv(drive, places.get(drive) ?? {}) : shareArgv(drive),
    ),
  ];
}

/** True if another process must be able to read the guest's memory: the one that serves a share by virtiofs does. */
export function sharesMemory(drives: readonly StorageDrive[] = []): boolean {
  return drives.some((drive) => drive.kind === 'share' && drive.way.protocol === 'virtiofs');
}

/** The same device wherever its files lie: what is left tells whether saved memory fits it. */
export function unplaced(drive: StorageDrive): StorageDrive {
  if (drive.kind === 'share') {
    const { way } = drive;
    return { ...drive, path: '', way: way.protocol === 'virtiofs' ? { ...way, socket: '' } : way };
  }
  const { backing, passphraseFile, ...disk } = drive;
  return {
    ...disk,
    path: '',
    ...(backing === undefined ? {} : { backing: { ...backing, path: '' } }),
    ...(passphraseFile === undefined ? {} : { passphraseFile: '' }),
  };
}

/** Only those that something is plugged into. The board itself has none: sata is off there, and is not ide's on x86. */
function controllers(disks: readonly StorageDisk[]): string[] {
  const count = (kind: StorageDisk['interface']): number =>
    disks.filter((disk) => disk.interface === kind).length;
  return [
    ...(count('scsi') > 0 ? device({ driver: 'virtio-scsi-pci', id: scsiBus }) : []),
    ...Array.from({ length: Math.ceil(count('sata') / ahciPorts) }, (_, i) =>
      device({ driver: 'ahci', id: sataBus(i) }),
    ).flat(),
    // Of QEMU's IDE controllers the one that its x86 boards are built with; two channels of two.
    ...(count('ide') > 0 ? device({ driver: 'piix3-ide', id: ideBus }) : []),
  ];
}

type Place = QemuObject;

/** Where each disk is plugged in. */
function placesOf(disks: readonly StorageDisk[]): Map<StorageDisk, Place> {
  const used = { sata: 0, ide: 0 };
  const numbers = plannedPorts(disks);
  const places = new Map<StorageDisk, Place>();
  for (const disk of disks) {
    if (disk.interface === 'sata') {
      const at = used.sata++;
      places.set(disk, { bus: `${sataBus(Math.floor(at / ahciPorts))}.${at % ahciPorts}` });
    } else if (disk.interface === 'ide') {
      const at = used.ide++;
      places.set(disk, { bus: `${ideBus}.${Math.floor(at / 2)}`, unit: at % 2 });
    } else places.set(disk, portPlace(disk, numbers.get(disk.device)));
  }
  return places;
}

/**
 * The number of each virtio and scsi disk, by its device: the one that it had before, else the first that is free. A disk that
 * comes or goes must not move the others, or saved memory would no longer fit.
 */
export function plannedPorts(disks: readonly StorageDisk[]): Map<string, number> {
  const next = { virtio: freeNumbers(disks, 'virtio', 1), scsi: freeNumbers(disks, 'scsi', 0) };
  return new Map(
    disks.flatMap((disk): [string, number][] =>
      disk.interface === 'virtio'
        ? [[disk.device, disk.port ?? Math.min(next.virtio(), noPort)]]
        : disk.interface === 'scsi'
          ? [[disk.device, disk.port ?? next.scsi()]]
          : [],
    ),
  );
}

/** Gives one number after the other that no disk of this interface has yet. */
function freeNumbers(
  disks: readonly StorageDisk[],
  kind: StorageDisk['interface'],
  first: number,
): () => number {
  const taken = new Set(disks.filter((disk) => disk.interface === kind).map(({ port }) => port));
  let next = first;
  return () => {
    while (taken.has(next)) next += 1;
    return next++;
  };
}

/** The number of virtio disks beside the board's own devices, where they stay as long as the machine runs. */
export const noPort = diskPorts + 1;

/** Where a virtio or scsi disk of this number is plugged in. */
export function portPlace({ interface: kind }: StorageDisk, number: number | undefined): Place {
  if (number === undefined) return {};
  if (kind === 'scsi') return { bus: `${scsiBus}.0`, 'scsi-id': number, lun: 0 };
  return kind === 'virtio' && number < noPort ? { bus: `port${number}` } : {};
}

function diskArgv(disk: StorageDisk, place: Place): string[] {
  const secret = secretOf(disk);
  const front = frontend(disk, place);
  return [
    ...(secret ? ['-object', JSON.stringify(secret)] : []),
    ...blockNodes(disk).flatMap((node) => ['-blockdev', JSON.stringify(node)]),
    ...(front ? ['-device', JSON.stringify(front)] : []),
  ];
}

/** The object that holds an encrypted disk's passphrase, by the file that it is in: no process list ever shows it. */
export function secretOf({ passphraseFile, node }: StorageDisk): QemuObject | undefined {
  if (passphraseFile === undefined) return undefined;
  return { 'qom-type': 'secret', id: `${node}-secret`, file: passphraseFile };
}

/**
 * The block nodes of a disk, file first, for `-blockdev` and `blockdev-add`. Formats are said, never probed: what a guest
 * writes to a raw disk must not make it something else at the next start. What a qcow2 stands on is only read. Discard on
 * both nodes, or nothing that the guest frees leaves the host's file; for the rest see the disk with the root file system.
 */
export function blockNodes(disk: StorageDisk): QemuObject[] {
  const { path: filename, format, readonly, node, fileNode, backing } = disk;
  const cache = { direct: false, 'no-flush': false };
  const discard = disk.discard && !readonly ? 'unmap' : 'ignore';
  const access = readonly ? { 'read-only': true } : {};
  return [
    { driver: 'file', 'node-name': fileNode, filename, aio: 'threads', cache, discard, ...access },
    {
      driver: format,
      'node-name': node,
      file: fileNode,
      cache,
      discard,
      // With discard off it is to stay off: zeros are written as they come.
      ...(discard === 'unmap' ? { 'detect-zeroes': 'unmap' } : {}),
      ...access,
      ...(disk.passphraseFile === undefined
        ? {}
        : { encrypt: { format: 'luks', 'key-secret': `${node}-secret` } }),
      ...(backing === undefined ? {} : { backing: backingNode(backing) }),
    },
  ];
}

function backingNode({ path: filename, format }: NonNullable<StorageDisk['backing']>): QemuObject {
  return { driver: format, 'read-only': true, file: { driver: 'file', filename, 'read-only': true } };
}

/** The device by which the guest sees a disk: its serial number is the disk's name, so that the guest finds it by that. */
export function frontend(disk: StorageDisk, place: Place = {}): QemuObject | undefined {
  const common = { id: disk.device, drive: disk.node, serial: disk.name };
  switch (disk.interface) {
    case 'none':
      return undefined;
    case 'virtio':
      return { driver: 'virtio-blk-pci', ...common, ...place };
    case 'scsi':
      // QEMU offers the serial number to the guest as the id of the device too, by which udev names it.
      return { driver: disk.isCdrom ? 'scsi-cd' : 'scsi-hd', ...common, ...place };
    case 'sata':
    case 'ide':
      return { driver: disk.isCdrom ? 'ide-cd' : 'ide-hd', ...common, ...place };
  }
}

function shareArgv({ path, mountTag, readonly, way, device: id }: StorageShare): string[] {
  const back = `${id}-back`;
  if (way.protocol === '9p') {
    const options = {
      id: back,
      path,
      security_model: way.securityModel,
      ...(readonly ? { readonly: true } : {}),
    };
    return [
      ...['-fsdev', optionString('local', options)],
      ...device({ driver: 'virtio-9p-pci', id, fsdev: back, mount_tag: mountTag }),
    ];
  }
  return [
    ...['-chardev', optionString('socket', { id: back, path: way.socket })],
    ...device({ driver: 'vhost-user-fs-pci', id, chardev: back, tag: mountTag }),
  ];
}

function device(properties: QemuObject): string[] {
  return ['-device', JSON.stringify(properties)];
}
