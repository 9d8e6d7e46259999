import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { printable } from '../host/run.ts';
import { checkStart } from '../vm/admission.ts';
import { requireSound, type SnapshotDisk } from '../vm/snapshot-disks.ts';
import { readSnapshots, requireSnapshot, type Snapshot } from '../vm/snapshot-list.ts';
import { clashOf, usesOfOthers } from '../vm/storage-users.ts';
import { requireMeant, withMachine, type OpenMachine } from './snapshot-machine.ts';

export interface LoadSnapshot {
  /** Only these disks are taken back; all that have the snapshot if empty. */
  readonly disks: readonly string[];
  /** Asked when a running machine would have to be stopped and started for it. */
  readonly mayRestart: () => Promise<boolean>;
  /** Take back the disks alone, and let the machine boot. */
  readonly noMemory: boolean;
  readonly overcommit: boolean;
  /** For the machine to be ready again. */
  readonly deadline: () => Deadline;
}

export interface Loaded {
  readonly snapshot: Snapshot;
  readonly disks: readonly string[];
  /** What became of the machine: still stopped, booted anew, or going on with the memory of the snapshot. */
  readonly machine: 'stopped' | 'restarted' | 'resumed';
}

/**
 * Takes a machine back to a snapshot; what happened since is lost. With memory it goes on from that moment, whether it ran or
 * not; of the disks alone, a running one is stopped and started again.
 * @throws Failure `not-found`, `wrong-state` with both ways out, `no-space`, `files`, `process`, `interrupted`
 */
export async function loadSnapshot(
  ctx: Context,
  instance: InstanceName,
  name: string,
  wanted: LoadSnapshot,
): Promise<Loaded> {
  return withMachine(ctx, instance, wanted.disks, async (opened) => {
    const snapshot = requireSnapshot(instance, await readSnapshots(ctx, instance, opened.all), name);
    requireMeant(opened, snapshot);
    const machine = { ...opened, disks: disksToLoad(opened, snapshot, wanted) };
    await requireSound(machine.disks);
    await refuseDependents(ctx, machine);
    const withMemory = snapshot.memory > 0 && !wanted.noMemory;
    if (withMemory) refusePartialMemory(machine, snapshot);
    const outcome = withMemory
      ? await resumeAt(ctx, machine, snapshot, wanted)
      : await revertTo(ctx, machine, snapshot, wanted);
    return { snapshot, disks: machine.disks.map((disk) => disk.name), machine: outcome };
  });
}

/** @throws Failure `not-found`, `wrong-state` for a set that is no longer whole */
function disksToLoad(
  { name: machine, all, disks }: OpenMachine,
  snapshot: Snapshot,
  wanted: LoadSnapshot,
): readonly SnapshotDisk[] {
  const has = (disk: SnapshotDisk): boolean => snapshot.parts.some((part) => part.disk === disk.name);
  const asked = wanted.disks.length > 0;
  const without = disks.find((disk) => !has(disk));
  if (asked && without)
    throw new Failure(
      'not-found',
      `the disk "${without.name}" of "${machine}" has no snapshot ${JSON.stringify(snapshot.name)}`,
      {
        hint: `zfsdev snapshot list ${machine} shows which disks have it`,
      },
    );
  if (!asked && snapshot.lost.length > 0)
    throw new Failure(
      'wrong-state',
      `the snapshot ${JSON.stringify(snapshot.name)} is no longer whole: ${snapshot.lost.join(', ')} lost it`,
      {
        hint: `--disk takes single disks back: ${all
          .filter(has)
          .map(({ name }) => `--disk ${name}`)
          .join(' ')}`,
      },
    );
  return asked ? disks : all.filter(has);
}

/** Memory goes with all disks of its moment, or a guest's caches would know of what no longer is. */
function refusePartialMemory({ name: machine, all, disks }: OpenMachine, { name }: Snapshot): void {
  if (disks.length === all.length) return;
  const command = printable(['zfsdev', 'snapshot', 'load', machine, name]);
  const flags = disks.map((disk) => `--disk ${disk.name}`).join(' ');
  throw new Failure('wrong-state', `memory can't be taken back without all disks of "${machine}"`, {
    hint: `only disks, by booting: ${command} ${flags} --no-memory`,
  });
}

/**
 * A disk that another one stands on must not change under it.
 * @throws Failure `wrong-state`
 */
async function refuseDependents(ctx: Context, { name: machine, disks }: OpenMachine): Promise<void> {
  const others = await usesOfOthers(ctx, machine);
  for (const { path } of disks) {
    const clash = clashOf({ path, writes: true }, others);
    if (!clash) continue;
    throw new Failure('wrong-state', `${path} must not change: it is in use as ${clash.what}`, {
      hint: `zfsdev snapshot export writes a snapshot to a file of its own, which nothing else depends on`,
      data: { disk: path, usedAs: clash.what },
    });
  }
}

async function resumeAt(
  ctx: Context,
  machine: OpenMachine,
  snapshot: Snapshot,
  wanted: LoadSnapshot,
): Promise<Loaded['machine']> {
  await machine.snapshots.checkRestore(machine, snapshot);
  if (!machine.running) await checkStart(ctx, machine.name, wanted.overcommit);
  await withUndo((undo) => machine.snapshots.restore(machine, snapshot, undo, wanted.deadline));
  return 'resumed';
}

async function revertTo(
  ctx: Context,
  machine: OpenMachine,
  snapshot: Snapshot,
  wanted: LoadSnapshot,
): Promise<Loaded['machine']> {
  const { name, instance, driver, running } = machine;
  const revert = (): Promise<void> =>
    step(ctx.emit, 'revert', `Taking the disks of ${name} back`, () =>
      machine.snapshots.revert(machine, snapshot),
    );
  if (!running) {
    await revert();
    return 'stopped';
  }
  await requireRestart(machine, snapshot, wanted);
  // Before it is stopped: a machine that may not start again is better left running.
  await checkStart(ctx, name, wanted.overcommit);
  // What is to be lost need not be written down; disks that stay as they are must be.
  const force = machine.disks.length === machine.all.length && machine.others.length === 0;
  await step(ctx.emit, 'stop', force ? `Cutting the power of ${name}` : `Shutting ${name} down`, () =>
    driver.stop(instance, { force, deadline: wanted.deadline() }),
  );
  try {
    await revert();
  } catch (error) {
    throw error instanceof Failure ? stopped(name, error) : error;
  }
  await withUndo((undo) => driver.start(instance, undo, wanted.deadline()));
  return 'restarted';
}

function stopped(name: string, cause: Failure): Failure {
  return new Failure(cause.reason, cause.message, {
    ...(cause.detail === undefined ? {} : { detail: cause.detail }),
    hint: `${cause.hint === undefined ? '' : `${cause.hint}\n`}"${name}" is stopped now; zfsdev start ${name} starts it again`,
    data: cause.data,
    cause,
  });
}

/** @throws Failure `wrong-state` with both ways out, unless it may be stopped and started */
async function requireRestart(
  { name: machine }: OpenMachine,
  { name, memory }: Snapshot,
  { mayRestart }: LoadSnapshot,
): Promise<void> {
  if (await mayRestart()) return;
  const flag = memory > 0 ? ' --no-memory' : '';
  const command = `${printable(['zfsdev', 'snapshot', 'load', machine, name])}${flag}`;
  throw new Failure(
    'wrong-state',
    `"${machine}" is running, and its disks can only be taken back while it is stopped`,
    {
      hint: `zfsdev stop ${machine} && ${command}\nor all at once, stop, load and start: ${command} --restart`,
      data: { name: machine, running: true },
    },
  );
}
