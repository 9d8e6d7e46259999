import { formatBytes } from '../core/bytes.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { parseSnapshotName } from '../core/snapshot-name.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
import { createSnapshot } from '../storage/snapshot-create.ts';
import { deleteSnapshot } from '../storage/snapshot-delete.ts';
import { exportSnapshots } from '../storage/snapshot-export.ts';
import { loadSnapshot } from '../storage/snapshot-load.ts';
import { surveySnapshots, type SizedSnapshot } from '../storage/snapshot-survey.ts';
import { confirm } from '../ui/confirm.ts';
import { table } from '../ui/table.ts';
import type { Snapshot } from '../vm/snapshot-list.ts';
import { requireInstance } from '../vm/store.ts';
import { canAsk, type GlobalOptions, type Session } from './session.ts';

export interface SnapshotOptions extends GlobalOptions {
  readonly disk?: readonly string[];
  readonly live?: boolean;
  /** `--no-memory` of load is false, `--memory` of create true. */
  readonly memory?: boolean;
  readonly overwrite?: boolean;
  readonly description?: string;
  readonly overcommit?: boolean;
  readonly restart?: boolean;
  readonly output?: string;
  readonly timeout?: string;
}

/** `zfsdev snapshot create`. */
export async function create(
  session: Session,
  instance: string,
  text: string,
  options: SnapshotOptions,
): Promise<void> {
  const [machine, name] = [parseName(instance), parseSnapshotName(text)];
  if (await planned(session, machine, `take the snapshot ${shown(name)} of ${machine}`)) return;
  const snapshot = await createSnapshot(session.ctx, machine, name, {
    disks: options.disk ?? [],
    live: options.live === true,
    memory: options.memory === true,
    overwrite: options.overwrite === true,
    overcommit: options.overcommit === true,
    ...(options.description === undefined ? {} : { description: options.description }),
  });
  await session.answer({ instance: machine, snapshot: document(snapshot) }, () => {
    const memory = snapshot.memory > 0 ? ` and ${formatBytes(snapshot.memory)} of memory` : '';
    return `${shown(name)} of ${session.paint('good', machine)} is taken: ${disksIn(snapshot).join(', ')}${memory}\n`;
  });
}

/** `zfsdev snapshot list`; the machine may run. */
export async function list(session: Session, instance: string): Promise<void> {
  const machine = parseName(instance);
  const { snapshots, others } = await surveySnapshots(session.ctx, machine);
  const answer = { instance: machine, snapshots: snapshots.map(sizedDocument), disksWithout: others };
  await session.answer(answer, () =>
    snapshots.length === 0
      ? `${machine} has no snapshots. zfsdev snapshot create ${machine} NAME takes one.\n`
      : `${table(columns, snapshots.map(row), session.width)}\n`,
  );
}

/** `zfsdev snapshot load`. */
export async function load(
  session: Session,
  instance: string,
  name: string,
  options: SnapshotOptions,
): Promise<void> {
  const { ctx } = session;
  const machine = parseName(instance);
  const deadline = parseDuration(options.timeout ?? '10m');
  if (await planned(session, machine, `take ${machine} back to ${shown(name)}`)) return;
  const question = `${machine} is running. Stop it, take its disks back to ${shown(name)}, and start it again?`;
  const loaded = await loadSnapshot(ctx, machine, name, {
    disks: options.disk ?? [],
    noMemory: options.memory === false,
    overcommit: options.overcommit === true,
    deadline: () => deadlineIn(deadline),
    mayRestart: async () =>
      options.restart === true ||
      (canAsk() && !session.json && confirm(question, { flag: '--restart', signal: ctx.signal })),
  });
  const words = {
    stopped: `and stopped; zfsdev start ${machine} boots it`,
    restarted: 'and was started again',
    resumed: 'and runs on from there',
  };
  await session.answer(
    { instance: machine, snapshot: loaded.snapshot.name, disks: loaded.disks, machine: loaded.machine },
    () => `${session.paint('good', machine)} is back at ${shown(name)}, ${words[loaded.machine]}\n`,
  );
}

async function deleteOne(
  session: Session,
  instance: string,
  name: string,
  options: SnapshotOptions,
): Promise<void> {
  const machine = parseName(instance);
  if (await planned(session, machine, `delete the snapshot ${shown(name)} of ${machine}`)) return;
  const { freed } = await deleteSnapshot(session.ctx, machine, name, options.disk ?? []);
  await session.answer(
    { instance: machine, deleted: name, freedBytes: freed },
    () => `${shown(name)} of ${session.paint('good', machine)} is deleted: ${formatBytes(freed)} freed\n`,
  );
}
export { deleteOne as delete };

/** `zfsdev snapshot export`. */
export async function exportTo(
  session: Session,
  instance: string,
  name: string,
  options: SnapshotOptions,
): Promise<void> {
  const machine = parseName(instance);
  if (
    await planned(session, machine, `write the disks of the snapshot ${shown(name)} of ${machine} to files`)
  )
    return;
  const exported = await exportSnapshots(session.ctx, machine, name, {
    disks: options.disk ?? [],
    overwrite: options.overwrite === true,
    overcommit: options.overcommit === true,
    ...(options.output === undefined ? {} : { output: options.output }),
  });
  const files = exported.map(({ disk, path, sha256, actual }) => ({
    disk,
    path,
    sha256,
    actualBytes: actual,
  }));
  await session.answer({ instance: machine, snapshot: name, files }, () =>
    exported
      .map(({ path, actual }) => `${session.paint('good', path)} (${formatBytes(actual)}), ${path}.sha256\n`)
      .join(''),
  );
}

/** Under --dry-run says what would be done of a machine that is there. */
async function planned({ ctx }: Session, machine: InstanceName, text: string): Promise<boolean> {
  if (!ctx.dryRun) return false;
  await requireInstance(ctx, machine);
  ctx.emit({ type: 'would', text });
  return true;
}

const columns = [
  { title: 'NAME' },
  { title: 'DATE' },
  { title: 'DISKS', optional: 3 },
  { title: 'DISK', align: 'right' },
  { title: 'MEMORY', align: 'right' },
  { title: 'ALONE', align: 'right', optional: 2 },
  { title: 'DESCRIPTION', flexible: true, optional: 1 },
] as const;

function row(snapshot: SizedSnapshot): string[] {
  const { name, date, memory, disk, alone, description, lost } = snapshot;
  const disks = disksIn(snapshot).join(', ') + (lost.length > 0 ? ` (lost: ${lost.join(', ')})` : '');
  return [
    name,
    localTime(date),
    disks,
    disk === undefined ? '?' : formatBytes(disk),
    memory > 0 ? formatBytes(memory) : '-',
    alone === undefined ? '?' : formatBytes(alone),
    description ?? '-',
  ];
}

/** As people write it, in the time zone of the host, to the second. */
function localTime(milliseconds: number): string {
  const date = new Date(milliseconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}

function disksIn({ parts }: Pick<Snapshot, 'parts'>): string[] {
  return [...new Set(parts.map(({ disk }) => disk))];
}

function document(snapshot: Snapshot): object {
  const { name, date, memory, lost, description } = snapshot;
  return {
    name,
    date: new Date(date).toISOString(),
    disks: disksIn(snapshot),
    ...(lost.length > 0 ? { lostDisks: lost } : {}),
    memoryBytes: memory,
    ...(description === undefined ? {} : { description }),
  };
}

function sizedDocument(snapshot: SizedSnapshot): object {
  const { disk, alone } = snapshot;
  return {
    ...document(snapshot),
    ...(disk === undefined ? {} : { diskBytes: disk }),
    ...(alone === undefined ? {} : { aloneBytes: alone }),
  };
}

function shown(name: string): string {
  return JSON.stringify(name);
}
