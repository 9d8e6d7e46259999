import { resolve } from 'node:path';
import { parseName, type InstanceName } from '../core/names.ts';
import { addDisk, type AddedDisk } from '../storage/disk-add.ts';
import { addCommand, diskFromOptions, type DiskOptions } from '../storage/disk-definition.ts';
import { importDisk } from '../storage/disk-import.ts';
import type { ListedDisk } from '../storage/disk-list.ts';
import { planned, type DiskCommandOptions, type Words } from './disk-options.ts';
import type { Session } from './session.ts';

/** `zfsdev disk add`. */
export async function add(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const shape = shapeOf(options);
  const disk = diskFromOptions(name, shape);
  if (await planned(session, machine, `give ${machine} the disk "${name}"`)) return;
  const command = addCommand(machine, name, shape);
  const added = await addDisk(session.ctx, machine, disk, {
    command,
    overcommit: options.overcommit === true,
  });
  await tellAdded(session, machine, added, added.made ? 'made' : 'taken as it is');
}

/** `zfsdev disk import`. */
export async function importFile(
  session: Session,
  [instance = '', name = '', file = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const shape = shapeOf(options);
  // Its size is that of the file, which is looked at later.
  const disk = diskFromOptions(name, { ...shape, size: '512B' });
  if (await planned(session, machine, `copy ${file} to the disk "${name}" of ${machine}`)) return;
  const words = addCommand(machine, name, { ...shape, file }).replace(' disk add ', ' disk import ');
  const added = await importDisk(session.ctx, machine, disk, file, {
    command: words.replace(' --file ', ' '),
    overcommit: options.overcommit === true,
    ...(options.from === undefined ? {} : { from: options.from }),
  });
  await tellAdded(session, machine, added, `copied from ${resolve(file)}`);
}

async function tellAdded(
  session: Session,
  machine: InstanceName,
  { disk, path, made, running }: AddedDisk,
  how: string,
): Promise<void> {
  await session.answer({ instance: machine, disk: disk.name, path, made, plugged: running }, () => {
    const when = running ? 'plugged in' : `there from the next start on: zfsdev start ${machine}`;
    const seen = running && disk.interface !== 'none' ? `; in the guest: ${guestName(disk)}` : '';
    return `"${disk.name}" of ${session.paint('good', machine)} is ${how}, and ${when}${seen}\n`;
  });
}

/** What udev calls a disk, by its serial number. */
function guestName({ name, interface: bus }: Pick<ListedDisk, 'name' | 'interface'>): string {
  return bus === 'virtio' ? `/dev/disk/by-id/virtio-${name}` : `the disk of serial number ${name}`;
}

/** What of the options says what a disk is like; what is as it is without them is left out. */
function shapeOf(options: DiskCommandOptions): DiskOptions {
  const isCdrom = options.media === 'cdrom';
  const keys = [
    'type',
    'size',
    'file',
    'interface',
    'media',
    'readonly',
    'backingFile',
    'backingFormat',
    'discard',
    'clusterSize',
    'compression',
    'passphraseFile',
  ] as const;
  const usual: DiskOptions = { type: 'qcow2', interface: 'virtio', discard: true };
  const given = keys.filter((key) => options[key] !== undefined && options[key] !== usual[key]);
  const shape: DiskOptions = Object.fromEntries(given.map((key) => [key, options[key]]));
  // A medium is read as it is, whatever it holds.
  return isCdrom && shape.type === undefined ? { ...shape, type: 'raw' } : shape;
}
