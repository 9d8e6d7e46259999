import { Failure } from '../core/errors.ts';
import { beforeLoad } from '../core/snapshot-name.ts';
import type { Context } from '../host/context.ts';
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  repairLeaks,
  type OpenedDisk,
} from '../qemu/img-snapshot.ts';
import { clearMemoryLeft } from '../qemu/qcow2-snapshots.ts';
import { noRoom, readTable, withAdvice, type SnapshotDisk } from './snapshot-disks.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';
import type { Snapshot } from './snapshot-list.ts';
import { clearBegun, readBegun, writeBegun, type Begun } from './snapshot-record.ts';

/** Takes a snapshot of a stopped machine, disk by disk. */
export async function takeOffline(ctx: Context, { disks }: SnapshotMachine, name: string): Promise<void> {
  for (const disk of disks) await onDisk(disk.path, () => createSnapshot(ctx, disk, name));
}

/** Deletes all snapshots of a name from the disks of a stopped machine, and memory that QEMU has left in them. */
export async function dropOffline(ctx: Context, { disks }: SnapshotMachine, name: string): Promise<void> {
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

/** Frees what a QEMU or qemu-img that was killed has left in the disks of a stopped machine. */
export async function freeLeaks(ctx: Context, { disks }: SnapshotMachine): Promise<void> {
  for (const disk of disks) await onDisk(disk.path, () => repairLeaks(ctx, disk));
}

async function countOf(path: string, name: string): Promise<number> {
  const { snapshots = [] } = (await readTable(path)) ?? {};
  return snapshots.filter((each) => each.name === name).length;
}

/**
 * Takes the disks of a stopped machine back to a snapshot, all of them or none.
 * @throws Failure `not-found`, `process`, `files`, `no-space`
 */
export async function revert(ctx: Context, machine: SnapshotMachine, snapshot: Snapshot): Promise<void> {
  const { disks, instance } = machine;
  const places = disks.map((disk) => ({ disk, id: idOn(snapshot, disk) }));
  await writeBegun(ctx, instance.name, loadOf(machine, snapshot.name));
  try {
    // A single disk is taken back at one moment.
    if (places.length > 1)
      for (const { disk } of places) await onDisk(disk.path, () => createSnapshot(ctx, disk, beforeLoad));
    for (const { disk, id } of places) await onDisk(disk.path, () => applySnapshot(ctx, disk, id));
  } catch (error) {
    await rolledBack(ctx, machine);
    throw error;
  }
  if (places.length > 1) await dropOffline(ctx, machine, beforeLoad);
  await clearBegun(ctx, instance.name);
}

/** What is written down while a set is taken back: it has to come back as a whole, or not at all. */
export function loadOf({ disks }: SnapshotMachine, name: string): Begun {
  return { verb: 'load', name, disks: disks.map((disk) => disk.name), memory: false };
}

/**
 * Has the disks of a stopped machine be what they were before a load that came to no end. Until all of them have kept that, none
 * was changed; and it is only let go of once all of them are back, or none has to be. Runs to its end, also after an interrupt.
 */
export async function rollBack(ctx: Context, machine: SnapshotMachine): Promise<void> {
  if (readBegun(ctx, machine.instance.name) === undefined) return;
  const calm: Context = { ...ctx, signal: new AbortController().signal };
  const kept = await Promise.all(
    machine.disks.map(async (disk) => ({ disk, id: await newestOf(disk, beforeLoad) })),
  );
  await freeLeaks(calm, machine);
  if (kept.length > 1 && kept.every(({ id }) => id !== undefined))
    for (const { disk, id } of kept) await onDisk(disk.path, () => applySnapshot(calm, disk, id ?? ''));
  await dropOffline(calm, machine, beforeLoad);
  await clearBegun(calm, machine.instance.name);
}

/** As `rollBack`, after a failure that is to be told: what can't be done now is settled by the next start, as it stays written down. */
export async function rolledBack(ctx: Context, machine: SnapshotMachine): Promise<void> {
  await rollBack(ctx, machine).catch(() => undefined);
}

async function newestOf({ path }: SnapshotDisk, name: string): Promise<string | undefined> {
  return (await readTable(path))?.snapshots.findLast((each) => each.name === name)?.id;
}

/** The id of a snapshot on one of the disks it is on. */
function idOn(snapshot: Snapshot, disk: SnapshotDisk): string {
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
