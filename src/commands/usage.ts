import { formatBytes } from '../core/bytes.ts';
import { ExitCode } from '../core/errors.ts';
import { surveyUsage, type MachineUsage, type SharedUsage, type Usage } from '../storage/usage.ts';
import { bar } from '../ui/bar.ts';
import { table } from '../ui/table.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface UsageOptions extends GlobalOptions {
  readonly all?: boolean;
}

/** `zfsdev usage`: virtual against actual, disk by disk; exit code 1 only if no disk could be read. */
export async function usage(
  session: Session,
  names: readonly string[],
  options: UsageOptions,
): Promise<number> {
  const found = await surveyUsage(session.ctx, { names, all: options.all === true });
  await session.answer(document(found), () => text(session, found));
  const disks = found.machines.flatMap((machine) => machine.disks);
  return disks.length > 0 && disks.every(({ problem }) => problem !== undefined)
    ? ExitCode.failed
    : ExitCode.done;
}

const columns = [
  { title: 'NAME' },
  { title: 'STATUS', optional: 6 },
  { title: 'VIRTUAL', align: 'right' },
  { title: 'ACTUAL', align: 'right' },
  { title: '', optional: 7 },
  { title: 'SNAPSHOTS', align: 'right', optional: 5 },
  { title: 'GUEST USES', align: 'right', optional: 4 },
  { title: 'TRIM', align: 'right', optional: 3 },
  { title: 'CLEAN', align: 'right', optional: 2 },
] as const;
const barWidth = 12;

function text(session: Session, { machines, shared, filesystems }: Usage): string {
  const { width } = session;
  const parts: string[] = [];
  if (machines.length === 0) parts.push('There are no instances. zfsdev up zfs-test makes one.');
  else
    parts.push(
      table(
        columns,
        machines.flatMap((machine) => rows(session, machine)),
        width,
      ),
    );
  if (shared.length > 0) parts.push(table(sharedColumns, shared.map(sharedRow), width));
  const problems = machines.flatMap(({ name, problem, disks }) =>
    [problem, ...disks.map((disk) => disk.problem)]
      .filter((each) => each !== undefined)
      .map((each) => `${name}: ${each}`),
  );
  if (problems.length > 0) parts.push(problems.map((problem) => session.paint('bad', problem)).join('\n'));
  const own = totalOf(machines) + shared.reduce((sum, { actual }) => sum + actual, 0);
  const hosts = filesystems.map(
    ({ path, free, total }) =>
      `${formatBytes(own)} in all; ${formatBytes(free)} of ${formatBytes(total)} free at ${path}`,
  );
  return `${[...parts, hosts.join('\n')].join('\n\n')}\n`;
}

function rows(session: Session, { name, driver, status, disks, guest, reclaim }: MachineUsage): string[][] {
  return disks.map((disk, index) => {
    const { virtual, actual, snapshots, heldBySnapshots, problem } = disk;
    const first = index === 0;
    const size = (value: number | undefined, bound = ''): string =>
      first && value !== undefined ? bound + formatBytes(value) : '-';
    return [
      first ? name : `  ${disk.path.split('/').at(-1) ?? ''}`,
      first ? (driver === 'lima' ? `${status} (lima)` : status) : '',
      problem !== undefined && virtual === 0 ? '?' : formatBytes(virtual),
      problem !== undefined && actual === 0 ? '?' : formatBytes(actual),
      session.paint(actual > virtual * 0.9 ? 'weak' : 'good', bar(actual, virtual, barWidth)),
      snapshots === 0 ? '-' : `${snapshots}: ${formatBytes(heldBySnapshots)}`,
      size(guest?.rootUsed),
      size(reclaim.trim, '≤ '),
      size(reclaim.clean),
    ];
  });
}

const sharedColumns = [
  { title: 'SHARED' },
  { title: 'ACTUAL', align: 'right' },
  { title: 'USED BY', flexible: true },
] as const;

function sharedRow({ what, key, actual, usedBy }: SharedUsage): string[] {
  return [`${what} ${key.slice(0, 12)}`, formatBytes(actual), usedBy.join(', ') || '-'];
}

function totalOf(machines: readonly MachineUsage[]): number {
  return machines.reduce(
    (sum, { disks, other }) => sum + other + disks.reduce((all, { actual }) => all + actual, 0),
    0,
  );
}

function document({ machines, shared, filesystems }: Usage): object {
  return {
    machines: machines.map(({ disks, other, guest, reclaim, ...machine }) => ({
      ...machine,
      disks: disks.map(({ virtual, actual, heldBySnapshots, ...disk }) => ({
        ...disk,
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
    })),
    shared: shared.map(({ actual, ...each }) => ({ ...each, actualBytes: actual })),
    filesystems: filesystems.map(({ path, free, total }) => ({ path, freeBytes: free, totalBytes: total })),
    totalBytes: totalOf(machines) + shared.reduce((sum, { actual }) => sum + actual, 0),
  };
}
