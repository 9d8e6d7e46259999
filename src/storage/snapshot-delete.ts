import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import { actualSize } from '../host/files.ts';
import { requireSound } from '../vm/snapshot-disks.ts';
import { readSnapshots, remember, requireSnapshot, type Snapshot } from '../vm/snapshot-list.ts';
import { clearBegun, writeBegun, type Begun } from '../vm/snapshot-record.ts';
import { requireMeant, withMachine, type OpenMachine } from './snapshot-machine.ts';

export interface Deleted {
  readonly snapshot: Snapshot;
  /** Bytes that the host has back. */
  readonly freed: number;
}

/**
 * Deletes a snapshot, the machine running or not. Snapshots of a disk don't stand on each other, so none is ever needed by
 * another one; only memory is of no use without the disks that belong to it.
 * @throws Failure `not-found`, `wrong-state`, `unsupported`, `process` if it is still there afterwards
 */
export async function deleteSnapshot(
  ctx: Context,
  instance: InstanceName,
  name: string,
  disks: readonly string[],
): Promise<Deleted> {
  return withMachine(ctx, instance, disks, async (opened) => {
    const snapshot = requireSnapshot(instance, await readSnapshots(ctx, instance, opened.all), name);
    requireMeant(opened, snapshot);
    const machine = { ...opened, disks: having(opened, snapshot, disks) };
    await requireSound(machine.disks);
    const before = sizeOf(machine);
    await dropSnapshot(ctx, machine, snapshot);
    return { snapshot, freed: Math.max(0, before - sizeOf(machine)) };
  });
}

/** Deletes a snapshot from the disks of a machine that is open. @throws Failure `process` if it is still there afterwards */
export async function dropSnapshot(ctx: Context, machine: OpenMachine, snapshot: Snapshot): Promise<void> {
  // A power cut leaves clusters that belong to nothing; the next command frees them.
  await writeBegun(ctx, machine.name, begunOf(machine, snapshot));
  await machine.snapshots.drop(machine, snapshot);
  const present = await readSnapshots(ctx, machine.name, machine.all);
  requireGone(machine, present, snapshot);
  await remember(ctx, machine.name, present);
  await clearBegun(ctx, machine.name);
}

function begunOf({ disks }: OpenMachine, { tag }: Snapshot): Begun {
  return { verb: 'delete', name: tag, disks: disks.map((disk) => disk.name), memory: false };
}

function having(
  { name: machine, all, disks }: OpenMachine,
  snapshot: Snapshot,
  asked: readonly string[],
): OpenMachine['disks'] {
  const has = all.filter((disk) => snapshot.parts.some((part) => part.disk === disk.name));
  if (asked.length === 0) return has;
  const chosen = disks.filter((disk) => has.includes(disk));
  if (chosen.length < disks.length)
    throw new Failure(
      'not-found',
      `not all of these disks have the snapshot ${JSON.stringify(snapshot.name)}`,
      {
        hint: `zfsdev snapshot list ${machine} shows which have it`,
      },
    );
  if (snapshot.memory > 0 && chosen.length < has.length)
    throw new Failure(
      'wrong-state',
      `the memory in ${JSON.stringify(snapshot.name)} is of no use without all of its disks`,
      {
        hint: `the whole of it: ${printable(['zfsdev', 'snapshot', 'delete', machine, snapshot.name])}`,
      },
    );
  return chosen;
}

function requireGone({ disks }: OpenMachine, present: readonly Snapshot[], { name, tag }: Snapshot): void {
  const left = present
    .find((each) => each.tag === tag)
    ?.parts.filter((part) => disks.some((disk) => disk.name === part.disk));
  if (!left || left.length === 0) return;
  throw new Failure('process', `the snapshot ${JSON.stringify(name)} was deleted, and is still there`, {
    detail: left.map(({ disk, id }) => `on the disk "${disk}", number ${id}`).join('\n'),
    hint: 'try again with the machine stopped',
  });
}

function sizeOf({ disks }: OpenMachine): number {
  return disks.reduce((sum, { path }) => sum + actualSize(path), 0);
}
