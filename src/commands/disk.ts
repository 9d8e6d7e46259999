import { resolve } from 'node:path';
import { exactBytes, bytes, formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { parseDuration } from '../host/deadline.ts';
import type { DiskFormat } from '../qemu/img.ts';
import { addDisk, type AddedDisk } from '../storage/disk-add.ts';
import { attachDisk, detachDisk, type Plugged, type Unplug } from '../storage/disk-attach.ts';
import { changeDisk } from '../storage/disk-change.ts';
import { convertFile } from '../storage/disk-convert.ts';
import { addCommand, diskFromOptions, type DiskOptions } from '../storage/disk-definition.ts';
import { importDisk } from '../storage/disk-import.ts';
import { listDisks, type ListedDisk } from '../storage/disk-list.ts';
import { removeDisk, type Loss } from '../storage/disk-remove.ts';
import { resizeDisk } from '../storage/disk-resize.ts';
import { readStorageSize } from '../template/storage-values.ts';
import { confirm } from '../ui/confirm.ts';
import { table } from '../ui/table.ts';
import { requireInstance } from '../vm/store.ts';
import { canAsk, type GlobalOptions, type Session } from './session.ts';

export interface DiskCommandOptions extends GlobalOptions, DiskOptions {
  readonly from?: DiskFormat;
  readonly to?: DiskFormat;
  readonly overwrite?: boolean;
  readonly overcommit?: boolean;
  readonly yes?: boolean;
  readonly force?: boolean;
  readonly timeout?: string;
}

type Words = readonly string[];

/** `zfsdev disk list`; the machine may run. */
export async function list(session: Session, [instance = '']: Words): Promise<void> {
  const machine = parseName(instance);
  const { running, disks } = await listDisks(session.ctx, machine);
  await session.answer({ instance: machine, running, disks: disks.map(document) }, () => {
    const rows = disks.map((disk) => row(session, disk));
    return `${table(columns, rows, session.width)}\n`;
  });
}

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

/** `zfsdev disk attach`. */
export async function attach(session: Session, [instance = '', name = '']: Words): Promise<void> {
  const machine = parseName(instance);
  if (await planned(session, machine, `plug the disk "${name}" into ${machine}`)) return;
  await tellPlugged(session, machine, 'attached', await attachDisk(session.ctx, machine, name));
}

/** `zfsdev disk detach`. */
export async function detach(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const unplug = unplugOf(options);
  if (await planned(session, machine, `unplug the disk "${name}" from ${machine}`)) return;
  await tellPlugged(session, machine, 'detached', await detachDisk(session.ctx, machine, name, unplug));
}

function unplugOf({ timeout = '30s', force = false }: DiskCommandOptions): Unplug {
  return { patience: parseDuration(timeout), force };
}

async function tellPlugged(
  session: Session,
  machine: InstanceName,
  what: 'attached' | 'detached',
  { disk, changed, running }: Plugged,
): Promise<void> {
  await session.answer({ instance: machine, disk: disk.name, [what]: true, changed, running }, () => {
    const when = running ? '' : ' from its next start on';
    const done = what === 'attached' ? 'plugged in' : 'unplugged';
    return `"${disk.name}" of ${session.paint('good', machine)} is ${done}${changed ? when : ' already'}\n`;
  });
}

/** `zfsdev disk remove`. */
export async function remove(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const unplug = unplugOf(options);
  if (await planned(session, machine, `remove the disk "${name}" of ${machine}`)) return;
  const mayLose = (loss: Loss): Promise<boolean> => mayRemove(session, machine, loss, options.yes === true);
  const removed = await removeDisk(session.ctx, machine, name, { mayLose, ...unplug });
  await session.answer(
    removed
      ? {
          instance: machine,
          removed: name,
          freedBytes: removed.freed,
          snapshots: removed.snapshots,
          ...(removed.stays === undefined ? {} : { fileThatStays: removed.stays }),
        }
      : { instance: machine, removed: null },
    () => {
      if (!removed) return `"${name}" of ${machine} stays\n`;
      const file =
        removed.stays === undefined ? `${formatBytes(removed.freed)} freed` : `${removed.stays} stays`;
      return `"${name}" of ${session.paint('good', machine)} is removed: ${file}\n`;
    },
  );
}

/** Names what goes before it goes. @throws Failure `usage` where nobody can be asked */
async function mayRemove(
  { ctx, json }: Session,
  machine: InstanceName,
  { disk, file, snapshots }: Loss,
  yes: boolean,
): Promise<boolean> {
  const names = snapshots.map((name) => JSON.stringify(name)).join(', ');
  const lost = snapshots.length === 0 ? '' : `the snapshots on it: ${names}`;
  if (yes) {
    if (lost) ctx.emit({ type: 'notice', level: 'info', text: `with "${disk}" go ${lost}` });
    return true;
  }
  const what = file === undefined ? `Forget the disk "${disk}" of ${machine}` : `Delete ${file}`;
  const question = `${what}${lost ? `, with ${lost}` : ''}?`;
  if (!canAsk() || json)
    throw new Failure('usage', `${question} There is no terminal to ask on`, { hint: 'add --yes' });
  return confirm(question, { flag: '--yes', signal: ctx.signal });
}

/** `zfsdev disk resize`. */
export async function resize(
  session: Session,
  [instance = '', name = '', text = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const size = readStorageSize(text);
  if (await planned(session, machine, `grow the disk "${name}" of ${machine} to ${exactBytes(size)}`)) return;
  const resized = await resizeDisk(session.ctx, machine, name, size, options.overcommit === true);
  const { before, after, live, steps } = resized;
  await session.answer(
    { instance: machine, disk: name, beforeBytes: before, afterBytes: after, live, steps },
    () => {
      const line = `"${name}" of ${session.paint('good', machine)} had ${exactBytes(bytes(before))}, has ${exactBytes(bytes(after))}\n`;
      return line + (after === before ? '' : steps.map((step) => `${step}\n`).join(''));
    },
  );
}

/** `zfsdev disk change`. */
export async function change(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const type = options.type === 'raw' ? 'raw' : 'qcow2';
  if (await planned(session, machine, `write the disk "${name}" of ${machine} anew as ${type}`)) return;
  const done = await changeDisk(session.ctx, machine, name, type, options.overcommit === true);
  const { path, changed, before, after } = done;
  await session.answer(
    { instance: machine, disk: name, type, path, changed, beforeBytes: before, afterBytes: after },
    () => {
      const sizes = changed ? `: took ${formatBytes(before)}, takes ${formatBytes(after)}` : ' already';
      return `"${name}" of ${session.paint('good', machine)} is ${type}${sizes}\n`;
    },
  );
}

/** `zfsdev disk convert`. */
export async function convert(
  session: Session,
  [source = '', target = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  if (session.ctx.dryRun) return session.ctx.emit({ type: 'would', text: `write ${source} as ${target}` });
  const { path, format, virtual, actual } = await convertFile(session.ctx, source, target, {
    overwrite: options.overwrite === true,
    overcommit: options.overcommit === true,
    ...(options.from === undefined ? {} : { from: options.from }),
    ...(options.to === undefined ? {} : { to: options.to }),
  });
  await session.answer(
    { path, format, virtualBytes: virtual, actualBytes: actual },
    () =>
      `${session.paint('good', path)} is ${format}: ${formatBytes(virtual)} virtual, ${formatBytes(actual)} on the host\n`,
  );
}

/** Under --dry-run says what would be done of a machine that is there. */
async function planned({ ctx }: Session, machine: InstanceName, text: string): Promise<boolean> {
  if (!ctx.dryRun) return false;
  await requireInstance(ctx, machine);
  ctx.emit({ type: 'would', text });
  return true;
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

const columns = [
  { title: 'NAME' },
  { title: 'TYPE' },
  { title: 'BUS', optional: 1 },
  { title: 'SIZE', align: 'right' },
  { title: 'ACTUAL', align: 'right', optional: 3 },
  { title: 'PLUGGED IN' },
  { title: 'FILE', flexible: true, optional: 2 },
  { title: 'NOTE', flexible: true },
] as const;

function row({ paint }: Session, disk: ListedDisk): string[] {
  const { name, type, virtual, actual, path, problem } = disk;
  const notes = [
    ...(disk.media === 'cdrom' ? ['cdrom'] : []),
    ...(disk.readonly && disk.media === 'disk' ? ['only read'] : []),
    ...(problem === undefined ? [] : [paint('bad', problem)]),
  ];
  return [
    name,
    type,
    disk.interface,
    virtual === undefined ? '?' : formatBytes(virtual),
    formatBytes(actual),
    pluggedWords(disk),
    path,
    notes.join(', ') || '-',
  ];
}

function pluggedWords({ plugged, attached }: ListedDisk): string {
  if (plugged !== undefined) return plugged ? 'yes' : 'no';
  return attached ? 'at start' : 'no';
}

function document(disk: ListedDisk): object {
  const { virtual, actual, plugged, backing, problem, ...rest } = disk;
  return {
    ...rest,
    plugged: plugged ?? null,
    ...(virtual === undefined ? {} : { virtualBytes: virtual }),
    actualBytes: actual,
    ...(backing === undefined ? {} : { backing }),
    ...(problem === undefined ? {} : { problem }),
  };
}
