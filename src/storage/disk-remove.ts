import { rm } from 'node:fs/promises';
import { Failure, messageOf } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import { actualSize } from '../host/files.ts';
import { isTaken, sweepUnfinished } from '../host/whole-file.ts';
import type { DiskDevice } from '../template/storage.ts';
import { readTable } from '../vm/snapshot-disks.ts';
import { placeOf } from '../vm/storage-places.ts';
import { clashOf, usesOfOthers } from '../vm/storage-users.ts';
import { takeOut, type Unplug } from './disk-attach.ts';
import { requireDisk, withDisks, type DiskMachine } from './disk-machine.ts';
import { detached, forgetDisk, recordDisk } from './disk-record.ts';

/** What goes when a disk is removed. */
export interface Loss {
  readonly disk: string;
  /** The file that is deleted; absent where it is the user's own, or gone. */
  readonly file?: string;
  /** Names of the snapshots on it, which lose this disk. */
  readonly snapshots: readonly string[];
}

export interface RemoveDisk extends Unplug {
  /** Asked before anything is done, where something goes that can't be had back. */
  readonly mayLose: (loss: Loss) => Promise<boolean>;
}

export interface RemovedDisk extends Loss {
  /** Bytes that the host has back. */
  readonly freed: number;
  /** Its file stays, as it is the user's own. */
  readonly stays?: string;
}

/**
 * Takes a disk from a machine: unplugs it, deletes its file if it lies in the machine's own folder, forgets it. Cut off at any
 * step, the same command completes it. Undefined if it was not to be lost: nothing was done then.
 * @throws Failure `not-found`, `unsupported`, `wrong-state` where another disk stands on it, or a running machine can't let go of
 *   it; `deadline`, `guest` if the guest doesn't let go; `files`, `process`, `interrupted`
 */
export function removeDisk(
  ctx: Context,
  name: InstanceName,
  diskName: string,
  wanted: RemoveDisk,
): Promise<RemovedDisk | undefined> {
  return withDisks(ctx, name, async (machine) => {
    const disk = requireDisk(machine, diskName);
    const path = placeOf(ctx, name, disk);
    const isOwn = disk.file === undefined;
    if (isOwn) await refuseBase(ctx, machine, path);
    const loss = await lossOf(disk, path);
    const matters = loss.file !== undefined || loss.snapshots.length > 0;
    if (matters && !(await wanted.mayLose(loss))) return undefined;
    const instance = await unplugged(ctx, machine, disk, wanted);
    const freed = isOwn ? actualSize(path) : 0;
    if (isOwn) await removeFile(path);
    await sweepUnfinished(ctx, [path]);
    await forgetDisk(ctx, instance, diskName);
    return { ...loss, freed, ...(isOwn || !isTaken(path) ? {} : { stays: path }) };
  });
}

/** A file that is gone, or can't be read, has nothing to lose that could be named. */
async function lossOf(disk: DiskDevice, path: string): Promise<Loss> {
  const table = disk.type === 'qcow2' ? await readTable(path).catch(() => undefined) : undefined;
  const snapshots = [...new Set(table?.snapshots.map((snapshot) => snapshot.name) ?? [])];
  const file = disk.file === undefined && isTaken(path) ? { file: path } : {};
  return { disk: disk.name, snapshots, ...file };
}

async function unplugged(
  ctx: Context,
  machine: DiskMachine,
  disk: DiskDevice,
  { patience, force }: Unplug,
): Promise<DiskMachine['instance']> {
  const command = printable(['zfsdev', 'disk', 'remove', machine.name, disk.name]);
  if (machine.running) return takeOut(ctx, machine, disk, { command, patience, force });
  return recordDisk(ctx, machine.instance, detached(disk));
}

/** @throws Failure `wrong-state` if a disk of another machine stands on it */
async function refuseBase(ctx: Context, { name }: DiskMachine, path: string): Promise<void> {
  const clash = clashOf({ path, writes: true }, await usesOfOthers(ctx, name));
  if (!clash) return;
  throw new Failure('wrong-state', `${path} is needed by ${clash.what}`, {
    hint: 'remove that one first',
    data: { path },
  });
}

/** Never a folder, and of a link the link alone. */
async function removeFile(path: string): Promise<void> {
  try {
    await rm(path, { force: true });
  } catch (error) {
    throw new Failure('files', `${path} can't be deleted: ${messageOf(error)}`, {
      hint: 'the disk is unplugged already; once the file can be deleted, the same command again',
      cause: error,
    });
  }
}
