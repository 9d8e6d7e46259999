import { expect, test } from 'vitest';
import { bytes, GiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { resolvePaths } from '../../../src/host/paths.ts';
import { planArgv } from '../../../src/qemu/argv.ts';
import { nowhere, type Machine } from '../../../src/qemu/machine.ts';
import { storageArgv, unplaced } from '../../../src/qemu/storage-argv.ts';
import type { DiskDevice, ShareDevice, StorageDevice } from '../../../src/template/storage.ts';
import { drivesOf } from '../../../src/vm/storage-devices.ts';

const paths = resolvePaths({ ZFSDEV_HOME: '/h' });
const disk = (name: string, more: Partial<DiskDevice> = {}): DiskDevice => ({
  type: 'qcow2',
  name,
  size: bytes(GiB),
  interface: 'virtio',
  media: 'disk',
  readonly: false,
  discard: true,
  ...more,
});
const share = (name: string, more: Partial<ShareDevice> = {}): ShareDevice => ({
  type: 'virtfs',
  name,
  path: '/opt/a,b',
  mountTag: name,
  protocol: '9p',
  securityModel: 'mapped-xattr',
  readonly: false,
  mountAt: `/mnt/${name}`,
  ...more,
});
const drives = (...storage: StorageDevice[]) => drivesOf({ paths }, parseName('one'), storage);

function machine(...storage: StorageDevice[]): Machine {
  return {
    name: 'one',
    architecture: 'x86_64',
    accelerator: 'tcg',
    cpus: 1,
    memory: bytes(GiB),
    boot: { kind: 'kernel', kernel: '', initrd: '', commandLine: '' },
    ...nowhere,
    modules: '/m',
    mac: '',
    sshPort: 1,
    storage: drives(...storage),
  };
}

/** The words behind an option, read as JSON. */
function after(argv: readonly string[], option: string): Record<string, unknown>[] {
  return argv.flatMap((word, i) =>
    word === option && argv[i + 1]?.startsWith('{')
      ? [JSON.parse(argv[i + 1] ?? '') as Record<string, unknown>]
      : [],
  );
}
const devices = (argv: readonly string[]): Record<string, unknown>[] => after(argv, '-device');
const nodes = (argv: readonly string[]): Record<string, unknown>[] => after(argv, '-blockdev');

test('a disk of each interface is plugged into what the board has no bus for of its own', () => {
  const argv = storageArgv(
    drives(
      disk('v'),
      disk('s', { interface: 'sata' }),
      disk('i', { interface: 'ide' }),
      disk('c', { interface: 'scsi' }),
      disk('n', { interface: 'none' }),
    ),
  );
  expect(devices(argv)).toEqual([
    { driver: 'virtio-scsi-pci', id: 'scsi0' },
    { driver: 'ahci', id: 'sata0' },
    { driver: 'piix3-ide', id: 'ide0' },
    { driver: 'virtio-blk-pci', id: 'device-v', drive: 'disk-v', serial: 'v', bus: 'port1' },
    { driver: 'ide-hd', id: 'device-s', drive: 'disk-s', serial: 's', bus: 'sata0.0' },
    { driver: 'ide-hd', id: 'device-i', drive: 'disk-i', serial: 'i', bus: 'ide0.0', unit: 0 },
    { driver: 'scsi-hd', id: 'device-c', drive: 'disk-c', serial: 'c', bus: 'scsi0.0', 'scsi-id': 0, lun: 0 },
  ]);
  expect(nodes(argv).map((node) => node['node-name'])).toContain('disk-n');
});

test('each virtio disk has a port, which it keeps whatever comes or goes; one too many is beside the board', () => {
  const buses = (...storage: StorageDevice[]): unknown[] =>
    devices(storageArgv(drives(...storage))).map(({ id, bus }) => [id, bus]);
  const [a, b, c, d, e] = ['a', 'b', 'c', 'd', 'e'].map((name) => disk(name));
  if (!a || !b || !c || !d || !e) throw new Error('no disks');
  expect(buses(a, b, c, d, e)).toEqual([
    ['device-a', 'port1'],
    ['device-b', 'port2'],
    ['device-c', 'port3'],
    ['device-d', 'port4'],
    ['device-e', undefined],
  ]);
  expect(buses({ ...a, detached: true }, { ...b, port: 2 }, c)).toEqual([
    ['device-b', 'port2'],
    ['device-c', 'port1'],
  ]);
  // Beside the board it stays, though a port is free now: memory that was saved has it there.
  expect(buses(a, { ...e, port: 5 })).toEqual([
    ['device-a', 'port1'],
    ['device-e', undefined],
  ]);
  const scsi = (one: DiskDevice): DiskDevice => ({ ...one, interface: 'scsi' });
  const numbers = devices(storageArgv(drives(scsi(a), { ...scsi(b), port: 0 }, scsi(c)))).slice(1);
  expect(numbers.map((device) => device['scsi-id'])).toEqual([1, 0, 2]);
});

test('a seventh disk of sata has a second controller, and ide two channels of two', () => {
  const sata = Array.from({ length: 7 }, (_, i) => disk(`s${i}`, { interface: 'sata' }));
  const onSata = devices(storageArgv(drives(...sata)));
  expect(onSata.filter(({ driver }) => driver === 'ahci').map(({ id }) => id)).toEqual(['sata0', 'sata1']);
  expect(onSata.slice(2).map(({ bus }) => bus)).toEqual([
    ...[0, 1, 2, 3, 4, 5].map((port) => `sata0.${port}`),
    'sata1.0',
  ]);
  const ide = Array.from({ length: 4 }, (_, i) => disk(`i${i}`, { interface: 'ide' }));
  const onIde = devices(storageArgv(drives(...ide))).slice(1);
  expect(onIde.map(({ bus, unit }) => [bus, unit])).toEqual([
    ['ide0.0', 0],
    ['ide0.0', 1],
    ['ide0.1', 0],
    ['ide0.1', 1],
  ]);
});

test('media: cdrom is a drive of that kind, and only read', () => {
  const medium = { type: 'raw', media: 'cdrom', readonly: true, file: '/a.iso' } as const;
  const argv = storageArgv(
    drives(
      disk('s', { ...medium, interface: 'sata' }),
      disk('i', { ...medium, interface: 'ide' }),
      disk('c', { ...medium, interface: 'scsi' }),
    ),
  );
  expect(devices(argv).flatMap(({ driver }) => (String(driver).endsWith('-cd') ? [driver] : []))).toEqual([
    'ide-cd',
    'ide-cd',
    'scsi-cd',
  ]);
  for (const node of nodes(argv)) expect(node).toMatchObject({ 'read-only': true, discard: 'ignore' });
});

test('formats are said, discard is on both nodes, and a backing file is only read', () => {
  const argv = storageArgv(
    drives(
      disk('a', { backingFile: '/b.raw', backingFormat: 'raw' }),
      disk('r', { type: 'raw', file: '/r' }),
    ),
  );
  const cache = { direct: false, 'no-flush': false };
  expect(nodes(argv)).toEqual([
    {
      driver: 'file',
      'node-name': 'disk-a-file',
      filename: '/h/instances/one/disks/a.qcow2',
      aio: 'threads',
      cache,
      discard: 'unmap',
    },
    {
      driver: 'qcow2',
      'node-name': 'disk-a',
      file: 'disk-a-file',
      cache,
      discard: 'unmap',
      'detect-zeroes': 'unmap',
      backing: {
        driver: 'raw',
        'read-only': true,
        file: { driver: 'file', filename: '/b.raw', 'read-only': true },
      },
    },
    { driver: 'file', 'node-name': 'disk-r-file', filename: '/r', aio: 'threads', cache, discard: 'unmap' },
    {
      driver: 'raw',
      'node-name': 'disk-r',
      file: 'disk-r-file',
      cache,
      discard: 'unmap',
      'detect-zeroes': 'unmap',
    },
  ]);
});

test('discard: off keeps what the guest frees, and zeros as they come', () => {
  const [file, node] = nodes(storageArgv(drives(disk('a', { discard: false }))));
  expect(file).toMatchObject({ discard: 'ignore' });
  expect(node).toMatchObject({ discard: 'ignore' });
  expect(node).not.toHaveProperty('detect-zeroes');
});

test('a passphrase is named by its file', () => {
  const argv = storageArgv(drives(disk('a', { format: { passphraseFile: '/p' } })));
  expect(after(argv, '-object')).toEqual([{ 'qom-type': 'secret', id: 'disk-a-secret', file: '/p' }]);
  expect(nodes(argv)[1]).toMatchObject({ encrypt: { format: 'luks', 'key-secret': 'disk-a-secret' } });
});

test('a share by 9p has its model, and the host keeps the guest from writing', () => {
  expect(storageArgv(drives(share('w', { readonly: true })))).toEqual([
    ...['-fsdev', 'local,id=device-w-back,path=/opt/a,,b,security_model=mapped-xattr,readonly=on'],
    ...['-device', '{"driver":"virtio-9p-pci","id":"device-w","fsdev":"device-w-back","mount_tag":"w"}'],
  ]);
});

test('a share by virtiofs needs memory that its server can reach', () => {
  const argv = planArgv(machine(share('w', { protocol: 'virtiofs' })), 'linux');
  expect(after(argv, '-object')).toEqual([
    { 'qom-type': 'memory-backend-memfd', id: 'ram0', size: GiB, share: true },
  ]);
  expect(argv).toContain('socket,id=device-w-back,path=/h/instances/one/fs-w.sock');
  const own = after(planArgv(machine(share('w')), 'linux'), '-object');
  expect(own).toEqual([{ 'qom-type': 'memory-backend-ram', id: 'ram0', size: GiB }]);
});

test('the disk with the root file system comes before all storage, and every other device where it was', () => {
  const without = devices(planArgv(machine(), 'linux'));
  const all = devices(
    planArgv(
      machine(disk('v'), disk('c', { interface: 'scsi' }), disk('s', { interface: 'sata' }), share('w')),
      'linux',
    ),
  );
  expect(all.slice(0, without.length)).toEqual(without);
  const virtio = all.filter(({ driver }) => driver === 'virtio-blk-pci').map(({ id }) => id);
  expect(virtio).toEqual(['blk0', 'blkmodules', 'device-v']);
});

test('what saved memory has to fit is the devices, not where their files lie', () => {
  const at = (home: string): string[] => {
    const own = disk('b', {
      file: `${home}/b`,
      backingFile: `${home}/c`,
      format: { passphraseFile: `${home}/p` },
    });
    const storage = [disk('a'), own, share('w', { path: `${home}/w` })];
    const found = drivesOf({ paths: resolvePaths({ ZFSDEV_HOME: home }) }, parseName('one'), storage);
    return storageArgv(found.map(unplaced));
  };
  expect(at('/x')).toEqual(at('/y'));
  expect(at('/x').join(' ')).not.toContain('/x');
});
