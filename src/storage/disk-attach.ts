import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { exists } from '../host/files.ts';
import { printable } from '../host/run.ts';
import type { DiskDevice } from '../template/storage.ts';
import type { Instance } from '../vm/instance.ts';
import { placeOf } from '../vm/storage-places.ts';
import { noFile, requireDisk, withDisks, type DiskMachine } from './disk-machine.ts';
import { isPluggedIn, plugIn, pullOut } from './disk-plug.ts';
import { attached, detached, recordDisk } from './disk-record.ts';
import { refuseUsed } from './disk-in-guest.ts';
import { requireAwake } from './snapshot-machine.ts';

/** What attaching or detaching came to. */
export interface Plugged {
  readonly disk: DiskDevice;
  /** False if it was so already. */
  readonly changed: boolean;
  /** The machine runs, so that it took effect at once; else it does at the next start. */
  readonly running: boolean;
}

/** How a disk is taken from a running guest. */
export interface Unplug {
  /** Milliseconds that the guest has to let go of it. */
  readonly patience: number;
  /** Though it is in use there. */
  readonly force: boolean;
}

/**
 * Plugs in a disk that belongs to the machine: at once if it runs, else at its next start. What was cut off is completed.
 * @throws Failure `not-found`, `unsupported`, `wrong-state` with both ways out, `files` if its file is gone, `process`
 */
export function attachDisk(ctx: Context, name: InstanceName, diskName: string): Promise<Plugged> {
  return withDisks(ctx, name, async (machine) => {
    const disk = requireDisk(machine, diskName);
    requireFile(ctx, machine, disk);
    const isThere = machine.running && (await isPluggedIn(ctx, machine, disk));
    const changed = disk.detached === true || (machine.running && !isThere);
    const command = printable(['zfsdev', 'disk', 'attach', name, diskName]);
    if (machine.running) await plugIn(ctx, machine, disk, { command });
    else if (changed) await recordDisk(ctx, machine.instance, attached(disk));
    return { disk: attached(disk), changed, running: machine.running };
  });
}

/**
 * Unplugs a disk, which goes on belonging to the machine: at once if it runs, once the guest has let go of it; else from its
 * next start on. What was cut off is completed.
 * @throws Failure `deadline`, `guest` if the guest doesn't let go or can't be asked, and the disk stays; `not-found`, `unsupported`,
 *   `wrong-state` where it is in use, or with both ways out, `process`, `interrupted`
 */
export function detachDisk(
  ctx: Context,
  name: InstanceName,
  diskName: string,
  { patience, force }: Unplug,
): Promise<Plugged> {
  return withDisks(ctx, name, async (machine) => {
    const disk = requireDisk(machine, diskName);
    const isThere = machine.running && (await isPluggedIn(ctx, machine, disk));
    const changed = disk.detached !== true || isThere;
    const command = printable(['zfsdev', 'disk', 'detach', name, diskName]);
    if (machine.running) await takeOut(ctx, machine, disk, { command, patience, force });
    else if (changed) await recordDisk(ctx, machine.instance, detached(disk));
    return { disk: detached(disk), changed, running: machine.running };
  });
}

/** Unplugs a disk from a running machine, whose guest has to be able to answer. */
export async function takeOut(
  ctx: Context,
  machine: DiskMachine,
  disk: DiskDevice,
  ways: Unplug & { readonly command: string },
): Promise<Instance> {
  if (await isPluggedIn(ctx, machine, disk)) {
    await requireAwake(ctx, machine.name);
    if (!ways.force && disk.interface !== 'none') await refuseUsed(ctx, machine.instance, disk.name);
  }
  return pullOut(ctx, machine, disk, ways);
}

/** @throws Failure `files`: an empty one in its place is not what was asked for */
function requireFile(ctx: Context, { name }: DiskMachine, disk: DiskDevice): void {
  const path = placeOf(ctx, name, disk);
  if (!exists(path)) throw noFile(name, disk.name, path);
}
