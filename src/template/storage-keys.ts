import { Failure } from '../core/errors.ts';
import { nearest } from '../core/names.ts';
import type { KeyPath, KeyProblem } from './schema.ts';
import type { DiskDevice, Qcow2Format, ShareDevice, StorageDevice } from './storage.ts';
import {
  readClusterSize,
  readHostPath,
  readMountPoint,
  readMountTag,
  readStorageName,
  readStorageSize,
} from './storage-values.ts';
import { inOneLine, readChoice, readSwitch, show, type Reader } from './values.ts';

/** So many disks and shares find room beside everything else on the machine's PCI bus. */
const most = 16;
/** Two channels of two each. */
const mostIde = 4;

const common = { name: readStorageName, type: readChoice('qcow2', 'raw', 'virtfs'), readonly: readSwitch };

const diskKeys = {
  ...common,
  file: readHostPath,
  size: readStorageSize,
  interface: readChoice('virtio', 'sata', 'ide', 'scsi', 'none'),
  media: readChoice('disk', 'cdrom'),
  backing_file: readHostPath,
  backing_format: readChoice('qcow2', 'raw'),
  discard: readSwitch,
};

const shareKeys = {
  ...common,
  path: readHostPath,
  mount_tag: readMountTag,
  security_model: readChoice('mapped-xattr', 'mapped-file', 'passthrough', 'none'),
  protocol: readChoice('9p', 'virtiofs'),
  mount_at: readMountPoint,
};

const formatKeys = { cluster_size: readClusterSize, compression: readChoice('zlib', 'zstd') };
const encryptionKeys = { passphrase_file: readHostPath };

const ofDisks = [...Object.keys(diskKeys), 'format'];
const ofShares = Object.keys(shareKeys);

type Values<T extends Record<string, Reader<unknown>>> = { [K in keyof T]?: ReturnType<T[K]> };

/** Collects what is wrong with one map of the list. */
class Entry {
  readonly #path: KeyPath;
  readonly #problems: KeyProblem[];

  constructor(path: KeyPath, problems: KeyProblem[]) {
    this.#path = path;
    this.#problems = problems;
  }

  /** Something wrong with a key, or with the map as a whole. */
  report(at: KeyProblem['at'], key: string | undefined, message: string): void {
    this.#problems.push({ path: key === undefined ? this.#path : [...this.#path, key], at, message });
  }

  below(key: string): Entry {
    return new Entry([...this.#path, key], this.#problems);
  }

  /** Reads the keys that are there. */
  read<T extends Record<string, Reader<unknown>>>(map: Record<string, unknown>, keys: T): Values<T> {
    const values: Record<string, unknown> = {};
    for (const [key, read] of Object.entries(keys)) {
      if (!(key in map)) continue;
      try {
        values[key] = read(map[key]);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        this.report('value', key, inOneLine(error));
      }
    }
    return values as Values<T>;
  }

  unknown(map: Record<string, unknown>, keys: readonly string[], others: readonly string[] = []): void {
    for (const key of Object.keys(map)) {
      if (keys.includes(key)) continue;
      const near = nearest(
        key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
        keys,
      );
      const advice = near === undefined ? `the keys here are ${keys.join(', ')}` : `did you mean "${near}"?`;
      const message = others.includes(key)
        ? `does not belong to this type of storage; the keys here are ${keys.join(', ')}`
        : `is not a known key; ${advice}`;
      this.report('key', key, message);
    }
  }
}

/** Reads the list `storage:` of a template, and reports all that is wrong with it; paths stay as they are written. */
export function readStorage(input: unknown, problems: KeyProblem[]): StorageDevice[] {
  if (!Array.isArray(input)) {
    const message = `must be a list of disks and shares, each a map, not ${show(input)}`;
    problems.push({ path: ['storage'], at: 'value', message });
    return [];
  }
  const devices = input.map((item: unknown, index) => {
    const entry = new Entry(['storage', String(index)], problems);
    if (isMap(item)) return readDevice(item, index, entry);
    entry.report('value', undefined, `must be a map, not ${show(item)}`);
    return undefined;
  });
  reportClashes(devices, problems);
  return devices.filter((device) => device !== undefined);
}

function isMap(input: unknown): input is Record<string, unknown> {
  return typeof input === 'object' && input !== null && !Array.isArray(input);
}

function readDevice(map: Record<string, unknown>, index: number, entry: Entry): StorageDevice | undefined {
  if (!('type' in map)) {
    entry.report('key', 'type', 'is missing: qcow2, raw or virtfs');
    return undefined;
  }
  return map['type'] === 'virtfs' ? readShare(map, index, entry) : readDisk(map, index, entry);
}

function readShare(map: Record<string, unknown>, index: number, entry: Entry): ShareDevice | undefined {
  entry.unknown(map, ofShares, ofDisks);
  const read = entry.read(map, shareKeys);
  const name = read.name ?? `storage${index}`;
  if (!('path' in map)) entry.report('key', 'path', 'is missing: the folder of the host');
  if (read.protocol === 'virtiofs' && 'security_model' in map) {
    entry.report('key', 'security_model', 'belongs to 9p; virtiofs passes owners and modes on as they are');
  }
  const mountTag = read.mount_tag ?? name;
  return {
    type: 'virtfs',
    name,
    path: read.path ?? '',
    mountTag,
    protocol: read.protocol ?? '9p',
    securityModel: read.security_model ?? 'mapped-xattr',
    readonly: read.readonly ?? false,
    mountAt: read.mount_at ?? `/mnt/${mountTag}`,
  };
}

function readDisk(map: Record<string, unknown>, index: number, entry: Entry): DiskDevice | undefined {
  entry.unknown(map, ofDisks, ofShares);
  const read = entry.read(map, diskKeys);
  const format = 'format' in map ? readFormat(map['format'], entry.below('format')) : undefined;
  if (read.type === undefined || read.type === 'virtfs') return undefined;
  const media = read.media ?? 'disk';
  const isCdrom = media === 'cdrom';
  reportConflicts(map, { ...read, media }, entry);
  return {
    type: read.type,
    name: read.name ?? `storage${index}`,
    ...(read.file === undefined ? {} : { file: read.file }),
    ...(read.size === undefined ? {} : { size: read.size }),
    interface: read.interface ?? (isCdrom ? 'sata' : 'virtio'),
    media,
    readonly: read.readonly ?? isCdrom,
    discard: read.discard ?? true,
    ...(read.backing_file === undefined
      ? {}
      : { backingFile: read.backing_file, backingFormat: read.backing_format ?? 'qcow2' }),
    ...(format === undefined || Object.keys(format).length === 0 ? {} : { format }),
  };
}

function readFormat(input: unknown, entry: Entry): Qcow2Format | undefined {
  const keys = [...Object.keys(formatKeys), 'encryption'];
  if (!isMap(input)) {
    entry.report('value', undefined, `must be a map with the keys ${keys.join(', ')}, not ${show(input)}`);
    return undefined;
  }
  entry.unknown(input, keys);
  const read = entry.read(input, formatKeys);
  const passphraseFile = 'encryption' in input ? readEncryption(input['encryption'], entry) : undefined;
  return {
    ...(read.cluster_size === undefined ? {} : { clusterSize: read.cluster_size }),
    ...(read.compression === undefined ? {} : { compression: read.compression }),
    ...(passphraseFile === undefined ? {} : { passphraseFile }),
  };
}

function readEncryption(input: unknown, parent: Entry): string | undefined {
  const entry = parent.below('encryption');
  if (!isMap(input)) {
    entry.report('value', undefined, `must be a map with the key passphrase_file, not ${show(input)}`);
    return undefined;
  }
  entry.unknown(input, Object.keys(encryptionKeys));
  if (!('passphrase_file' in input)) entry.report('key', 'passphrase_file', 'is missing');
  return entry.read(input, encryptionKeys).passphrase_file;
}

/** What contradicts each other in one disk. */
function reportConflicts(
  map: Record<string, unknown>,
  read: Values<typeof diskKeys> & { readonly media: 'disk' | 'cdrom' },
  entry: Entry,
): void {
  const has = (key: string): boolean => key in map;
  if (read.type === 'raw') {
    for (const key of ['backing_file', 'backing_format', 'format']) {
      if (has(key)) entry.report('key', key, 'belongs to a qcow2; a raw disk has nothing but its content');
    }
  }
  if (has('backing_format') && !has('backing_file')) {
    entry.report('key', 'backing_format', 'belongs to a backing_file, and there is none');
  }
  if (read.media === 'cdrom') return reportCdrom(has, read, entry);
  if (read.readonly === true && !has('file')) {
    entry.report('key', 'readonly', 'needs a file that is there: one that is made now would be empty');
  }
  if (!has('size') && !has('file') && !has('backing_file')) {
    entry.report('key', 'size', 'is missing: there is no file or backing_file that it could come from');
  }
}

function reportCdrom(has: (key: string) => boolean, read: Values<typeof diskKeys>, entry: Entry): void {
  if (!has('file')) entry.report('key', 'file', 'is missing: the medium of a cdrom must be there');
  if (read.readonly === false) entry.report('value', 'readonly', 'a cdrom is only read');
  if (read.interface === 'virtio') {
    entry.report('value', 'interface', 'virtio has no cdrom; take sata, scsi or ide');
  }
  for (const key of ['size', 'backing_file', 'format']) {
    if (has(key)) entry.report('key', key, 'belongs to a disk; a cdrom is a file that is there');
  }
}

/** What only one of all disks and shares can have. */
function reportClashes(devices: readonly (StorageDevice | undefined)[], problems: KeyProblem[]): void {
  const taken = (key: string, of: (device: StorageDevice) => string | undefined): void => {
    const seen = new Map<string, number>();
    for (const [index, device] of devices.entries()) {
      const value = device && of(device);
      if (value === undefined || value === '') continue;
      const first = seen.get(value);
      seen.set(value, first ?? index);
      if (first === undefined) continue;
      const message = `${show(value)} is taken by storage[${first}] already`;
      problems.push({ path: ['storage', String(index), key], at: 'value', message });
    }
  };
  taken('name', ({ name }) => name);
  taken('mount_tag', (device) => (device.type === 'virtfs' ? device.mountTag : undefined));
  taken('mount_at', (device) => (device.type === 'virtfs' ? device.mountAt : undefined));
  // A medium that nobody writes to may be in two drives.
  taken('file', (device) => (device.type === 'virtfs' || device.readonly ? undefined : device.file));
  const ide = devices.flatMap((device, index) =>
    device && device.type !== 'virtfs' && device.interface === 'ide' ? [index] : [],
  );
  const beyond = ide[mostIde];
  if (beyond !== undefined) {
    const message = `there is room for ${mostIde} of interface ide`;
    problems.push({ path: ['storage', String(beyond), 'interface'], at: 'value', message });
  }
  if (devices.length > most) {
    const message = `has ${devices.length} disks and shares; there is room for ${most}`;
    problems.push({ path: ['storage'], at: 'key', message });
  }
}
