import { formatBytes } from '../core/bytes.ts';
import { parseName } from '../core/names.ts';
import { listDisks, type ListedDisk } from '../storage/disk-list.ts';
import { table } from '../ui/table.ts';
import type { Words } from './disk-options.ts';
import type { Session } from './session.ts';

/** `zfsdev disk list`; the machine may run. */
export async function list(session: Session, [instance = '']: Words): Promise<void> {
  const machine = parseName(instance);
  const { running, disks } = await listDisks(session.ctx, machine);
  await session.answer({ instance: machine, running, disks: disks.map(document) }, () => {
    const rows = disks.map((disk) => row(session, disk));
    return `${table(columns, rows, session.width)}\n`;
  });
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
