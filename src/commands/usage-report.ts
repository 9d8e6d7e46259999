import { formatBytes, MiB } from '../core/bytes.ts';
import type { SharedUsage } from '../storage/shared-usage.ts';
import { totalOf, type MachineUsage, type Usage } from '../storage/usage.ts';
import { bar } from '../ui/bar.ts';
import { table, widthOf, type Column } from '../ui/table.ts';
import type { Session } from './session.ts';

/** How a disk changed since the first look, as a cell; empty while it didn't. */
export type ChangeOf = (machine: MachineUsage, path: string) => string;

/** What a report needs to know of where it is shown. */
export type Look = Pick<Session, 'paint' | 'width'>;

/** Machines, what they stand on, what is wrong, and the host's free space; separated by empty lines. */
export function usageText(look: Look, found: Usage): string {
  const { machines, shared } = found;
  const parts =
    machines.length === 0
      ? ['There are no instances. zfsdev up zfs-test makes one.']
      : [machineTable(look, machines)];
  if (shared.length > 0) parts.push(table(sharedColumns, shared.map(sharedRow), look.width));
  const problems = problemsOf(found);
  if (problems.length > 0) parts.push(problems.map((problem) => look.paint('bad', problem)).join('\n'));
  return `${[...parts, ...hostLines(found)].join('\n\n')}\n`;
}

/** Everything that is wrong, machine by machine. */
export function problemsOf({ machines }: Usage): string[] {
  return machines.flatMap(({ name, problem, disks }) =>
    [problem, ...disks.map((disk) => disk.problem)]
      .filter((each) => each !== undefined)
      .map((each) => `${name}: ${each}`),
  );
}

/** The sum, and what is free, for each filesystem that any of it lies on. */
export function hostLines(found: Usage): string[] {
  const total = formatBytes(totalOf(found));
  return found.filesystems.map(
    ({ path, free, total: size }) =>
      `${total} in all; ${formatBytes(free)} of ${formatBytes(size)} free at ${path}`,
  );
}

/** A size with its sign: `+12 MiB`. */
export function signed(change: number): string {
  return change > 0 ? `+${formatBytes(change)}` : formatBytes(change);
}

/** What is left out where there is no room: the highest number first. */
const columns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'STATUS', optional: 2 },
  { title: 'VIRTUAL', align: 'right' },
  { title: 'ACTUAL', align: 'right' },
  { title: '', optional: 1 },
  { title: 'CHANGE', align: 'right' },
  { title: 'SNAPSHOTS', align: 'right', optional: 7 },
  { title: 'GUEST USES', align: 'right', optional: 6 },
  { title: 'TRIM', align: 'right', optional: 4 },
  { title: 'CLEAN', align: 'right', optional: 5 },
  { title: 'COMPACT', align: 'right', optional: 3 },
];
/** These always stand there; of the others, those in which some row has something to say. */
const always = 5;
const changeColumn = always;
const shortestBar = 6;
const longestBar = 16;

/** One row a disk. The bar takes the room that the rest leaves. */
export function machineTable(look: Look, machines: readonly MachineUsage[], changeOf?: ChangeOf): string {
  const draw = (barWidth: number): string => {
    const all = machines.flatMap((machine) => rows(look, machine, barWidth, changeOf));
    const speaks = columns.map(
      (_, i) =>
        i < always || (i === changeColumn && changeOf !== undefined) || all.some((row) => row[i] !== '-'),
    );
    const shown = <T>(cells: readonly T[]): T[] => cells.filter((_, i) => speaks[i]);
    return table(shown(columns), all.map(shown), look.width);
  };
  const narrow = draw(shortestBar);
  const spare = look.width - Math.max(...narrow.split('\n').map(widthOf));
  return spare > 0 ? draw(Math.min(longestBar, shortestBar + spare)) : narrow;
}

function rows(
  { paint }: Look,
  machine: MachineUsage,
  barWidth: number,
  changeOf: ChangeOf = () => '-',
): string[][] {
  const { name, driver, status, disks, guest, reclaim } = machine;
  const told = driver === 'lima' ? `${status} (lima)` : status;
  if (disks.length === 0)
    return [[name, told, '?', '?', ' '.repeat(barWidth), ...columns.slice(always).map(() => '-')]];
  return disks.map((disk, index) => {
    const { path, virtual, actual, snapshots, heldBySnapshots, problem } = disk;
    const first = index === 0;
    const size = (value: number | undefined, bound = ''): string =>
      first && value !== undefined ? bound + formatBytes(value) : '-';
    return [
      first ? name : `  ${path.split('/').at(-1) ?? ''}`,
      first ? told : '',
      problem !== undefined && virtual === 0 ? '?' : formatBytes(virtual),
      problem !== undefined && actual === 0 ? '?' : formatBytes(actual),
      paint(actual > virtual * 0.9 ? 'weak' : 'good', bar(actual, virtual, barWidth)),
      changeOf(machine, path),
      snapshots === 0 ? '-' : `${snapshots}: ${formatBytes(heldBySnapshots)}`,
      size(guest?.rootUsed),
      size(reclaim.trim, '≤ '),
      size(reclaim.clean),
      // Less than that is within what the estimate can miss.
      reclaim.compact !== undefined && reclaim.compact < MiB ? '-' : size(reclaim.compact, '~ '),
    ];
  });
}

const sharedColumns: readonly Column[] = [
  { title: 'SHARED', flexible: true },
  { title: 'ACTUAL', align: 'right' },
  { title: 'USED BY', flexible: true },
];

function sharedRow({ what, key, actual, usedBy }: SharedUsage): string[] {
  return [sharedLabel(what, key), formatBytes(actual), usedBy.join(', ') || '-'];
}

/** `image 49fa7b83692a`; a base by its path. */
export function sharedLabel(what: string, key: string): string {
  return `${what} ${what === 'base' ? key : key.slice(0, 12)}`;
}

/** The answer of `--json`. */
export function usageDocument(found: Usage): object {
  return {
    machines: found.machines.map(machineDocument),
    shared: found.shared.map(({ actual, ...each }) => ({ ...each, actualBytes: actual })),
    filesystems: found.filesystems.map(({ path, free, total }) => ({
      path,
      freeBytes: free,
      totalBytes: total,
    })),
    totalBytes: totalOf(found),
  };
}

function machineDocument({ disks, other, guest, reclaim, ...machine }: MachineUsage): object {
  return {
    ...machine,
    disks: disks.map(({ path, kind, virtual, actual, snapshots, heldBySnapshots, backing, problem }) => ({
      path,
      kind,
      snapshots,
      backing,
      problem,
      virtualBytes: virtual,
      actualBytes: actual,
      heldBySnapshotsBytes: heldBySnapshots,
    })),
    otherBytes: other,
    ...(guest
      ? {
          guest: {
            rootTotalBytes: guest.rootTotal,
            rootUsedBytes: guest.rootUsed,
            pools: guest.pools.map(({ name, size, allocated }) => ({
              name,
              sizeBytes: size,
              allocatedBytes: allocated,
            })),
            cleanableBytes: guest.cleanable,
          },
        }
      : {}),
    reclaimBytes: reclaim,
  };
}
