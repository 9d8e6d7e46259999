import { Failure } from '../core/errors.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  repairLeaks,
  type OpenedDisk,
} from '../qemu/img-snapshot.ts';
import { clearMemoryLeft } from '../qemu/qcow2-snapshots.ts';
import type { Instance } from './instance.ts';
import { findMachine } from './machine-process.ts';
import { checkMemory } from './memory-blockers.ts';
import { checkLiveRestore, dropLive, restoreLive, restoreStopped, takeLive } from './qemu-snapshot-live.ts';
import { noRoom, readTable, withAdvice, type SnapshotDisk } from './snapshot-disks.ts';
import type { SnapshotDriver, SnapshotMachine } from './snapshot-driver.ts';
import type { Snapshot } from './snapshot-list.ts';

/** Snapshots of the built-in driver's machines: by QMP while they run, by qemu-img while they don't. */
export function qemuSnapshots(ctx: Context): SnapshotDriver {
  return {
    checkTake: (machine, name, memory) => checkMemory(ctx, machine, name, memory),
    take: (machine, name, memory) =>
      machine.running
        ? takeLive(ctx, machine, name, memory)
        : takeOffline(ctx, machine, name).then(() => undefined),
    forget: (machine, name) => forget(ctx, machine, name),
    drop: (machine, snapshot) =>
      machine.running ? dropLive(ctx, machine, snapshot.name) : dropOffline(ctx, machine, snapshot.name),
    revert: (machine, snapshot) => revert(ctx, machine, snapshot),
    checkRestore: (machine, snapshot) => checkLiveRestore(ctx, machine, snapshot),
    restore: (machine, snapshot, undo, deadline) => restore(ctx, machine, snapshot, undo, deadline),
  };
}

function restore(
  ctx: Context,
  machine: SnapshotMachine,
  snapshot: Snapshot,
  undo: UndoStack,
  deadline: Deadline,
): Promise<Instance> {
  return machine.running
    ? restoreLive(ctx, machine, snapshot, deadline)
    : restoreStopped(ctx, machine, snapshot, undo, deadline);
}

async function takeOffline(ctx: Context, { disks }: SnapshotMachine, name: string): Promise<void> {
  for (const disk of disks) await onDisk(disk.path, () => createSnapshot(ctx, disk, name));
}

/** Runs to its end even if it is the answer to an interrupt. */
async function forget(ctx: Context, machine: SnapshotMachine, name: string): Promise<void> {
  const calm: Context = { ...ctx, signal: new AbortController().signal };
  const { pid } = ctx.paths.instance(machine.instance.name);
  if ((await findMachine(calm, pid)) !== undefined) return dropLive(calm, machine, name);
  // A QEMU that was killed may have left clusters that belong to nothing.
  for (const disk of machine.disks) await repairLeaks(calm, disk);
  await dropOffline(calm, machine, name);
}

async function dropOffline(ctx: Context, { disks }: SnapshotMachine, name: string): Promise<void> {
  for (const disk of disks) {
    for (let left = await countOf(disk.path, name); left > 0; left -= 1)
      await onDisk(disk.path, () => deleteSnapshot(ctx, disk, name));
    await giveBackMemory(ctx, disk);
  }
}

/** Gives back the room of memory that QEMU has left in a disk that nobody uses. */
export async function giveBackMemory(ctx: Context, disk: OpenedDisk): Promise<void> {
  if (await clearMemoryLeft(disk.path)) await repairLeaks(ctx, disk);
}

async function countOf(path: string, name: string): Promise<number> {
  const { snapshots = [] } = (await readTable(path)) ?? {};
  return snapshots.filter((each) => each.name === name).length;
}

/** Where each disk stood, so that a set is taken back as a whole or not at all. */
const before = 'zfsdev: before the load';

async function revert(ctx: Context, { disks }: SnapshotMachine, snapshot: Snapshot): Promise<void> {
  const places = disks.map((disk) => ({ disk, id: idOn(snapshot, disk) }));
  const [only, ...more] = places;
  if (only === undefined) return;
  if (more.length === 0) return onDisk(only.disk.path, () => applySnapshot(ctx, only.disk, only.id));
  const calm: Context = { ...ctx, signal: new AbortController().signal };
  const reverted: SnapshotDisk[] = [];
  try {
    for (const { disk } of places) await createSnapshot(ctx, disk, before);
    for (const { disk, id } of places) {
      reverted.push(disk);
      await onDisk(disk.path, () => applySnapshot(ctx, disk, id));
    }
  } catch (error) {
    for (const disk of reverted) await applyByName(calm, disk, before);
    throw error;
  } finally {
    await dropOffline(calm, { disks } as SnapshotMachine, before);
  }
}

async function applyByName(ctx: Context, disk: SnapshotDisk, name: string): Promise<void> {
  const found = (await readTable(disk.path))?.snapshots.findLast((each) => each.name === name);
  if (found) await applySnapshot(ctx, disk, found.id);
}

/** The id of a snapshot on one of the disks it is on. */
export function idOn(snapshot: Snapshot, disk: SnapshotDisk): string {
  const part = snapshot.parts.find((each) => each.disk === disk.name);
  if (part) return part.id;
  throw new Failure('not-found', `the disk "${disk.name}" has no snapshot ${JSON.stringify(snapshot.name)}`);
}

/** Adds what to do where the disk turns out to be damaged. */
async function onDisk(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Failure && error.detail?.includes('No space left on device')) throw noRoom(error);
    throw withAdvice(path, error);
  }
}
