import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { diskPorts } from '../qemu/machine.ts';
import { deviceIds, isPlugged, plug, portsIn, unplug } from '../qemu/plug.ts';
import type { Qmp } from '../qemu/qmp.ts';
import { scsiBus } from '../qemu/storage-argv.ts';
import { attachedStorage, disksAmong, type DiskDevice, type StorageDevice } from '../template/storage.ts';
import { planOf } from '../vm/disk-plan.ts';
import type { Instance } from '../vm/instance.ts';
import { deviceOf } from '../vm/storage-places.ts';
import { isSeen } from './disk-in-guest.ts';
import { withMonitor, type DiskMachine } from './disk-machine.ts';
import { attached, detached, writeStorage } from './disk-record.ts';

/** The command that does it once the machine is stopped, and another way out. */
export interface WaysOut {
  /** As it was typed. */
  readonly command: string;
  /** Called once the machine has it: from then on its file must not be taken away. */
  readonly plugged?: () => void;
}

/**
 * Plugs a disk into a running machine and writes that down; one that is plugged in already is only written down. Whatever an
 * attempt that was cut off has left in QEMU goes first.
 * @throws Failure `wrong-state` with both ways out where it can't be plugged in while the machine runs; `process`
 */
export async function plugIn(
  ctx: Context,
  { name, instance }: DiskMachine,
  disk: DiskDevice,
  ways: WaysOut,
): Promise<Instance> {
  refuseFixed(name, disk, ways);
  const changed = await withMonitor(ctx, name, async (qmp) => {
    await step(ctx.emit, 'plug', `Plugging "${disk.name}" into ${name}`, async () => {
      const placed = await withFreePlace(qmp, name, instance, disk, ways);
      await plug(qmp, planOf(ctx, name, attached(placed))).catch((error: unknown) => {
        throw error instanceof Failure && error.data['fixedBus'] === true
          ? fixed(name, disk, error.message, ways)
          : error;
      });
    });
    ways.plugged?.();
    return writeDown(ctx, qmp, instance, attached(disk));
  });
  if (disk.interface !== 'none' && !(await isSeen(ctx, changed, disk.name))) {
    const text = `the guest of ${name} does not show "${disk.name}" yet`;
    ctx.emit({ type: 'notice', level: 'warning', text });
  }
  return changed;
}

/**
 * Has a running machine's guest let go of a disk, and writes that down; one that is gone already is only written down.
 * @param patience milliseconds that the guest has for it
 * @throws Failure `deadline`, `guest` if it doesn't: nothing is lost, and the disk stays plugged in; `wrong-state` with both
 *   ways out where it can't be unplugged while the machine runs; `process`, `interrupted`
 */
export async function pullOut(
  ctx: Context,
  { name, instance }: DiskMachine,
  disk: DiskDevice,
  ways: WaysOut & { readonly patience: number },
): Promise<Instance> {
  return withMonitor(ctx, name, async (qmp) => {
    await step(ctx.emit, 'plug', `Unplugging "${disk.name}" from ${name}`, async () => {
      const options = { deadline: deadlineIn(ways.patience), signal: ctx.signal };
      await unplug(qmp, planOf(ctx, name, disk), options).catch((error: unknown) => {
        throw explained(name, disk, error, ways);
      });
    });
    return writeDown(ctx, qmp, instance, detached(disk));
  });
}

/** Whether QEMU has the disk. */
export async function isPluggedIn(ctx: Context, { name }: DiskMachine, disk: DiskDevice): Promise<boolean> {
  return withMonitor(ctx, name, (qmp) => isPlugged(qmp, planOf(ctx, name, disk)));
}

/** @throws Failure `wrong-state` with both ways out for a disk whose bus takes none while the machine runs */
export function refuseFixed(machine: string, disk: DiskDevice, ways: WaysOut): void {
  if (disk.interface !== 'sata' && disk.interface !== 'ide') return;
  throw fixed(machine, disk, `${disk.interface} takes no disks while a machine runs`, ways);
}

function fixed(machine: string, disk: DiskDevice, why: string, { command }: WaysOut): Failure {
  const other = disk.interface === 'virtio' ? '' : '\nor, while it runs, a disk with --interface virtio';
  return new Failure('wrong-state', `"${disk.name}" can't be changed while "${machine}" runs: ${why}`, {
    hint: `zfsdev stop ${machine} && ${command} && zfsdev start ${machine}${other}`,
    data: { name: machine, disk: disk.name, running: true },
  });
}

function explained(
  machine: string,
  disk: DiskDevice,
  error: unknown,
  ways: WaysOut & { readonly patience: number },
): unknown {
  if (!(error instanceof Failure)) return error;
  if (error.data['fixedBus'] === true) return fixed(machine, disk, error.message, ways);
  if (error.reason !== 'deadline' && error.reason !== 'guest') return error;
  return new Failure(
    error.reason,
    `"${disk.name}" is still plugged into "${machine}": ${error.message}; nothing is lost`,
    {
      hint: `zfsdev exec ${machine} -- lsblk -o NAME,SERIAL,MOUNTPOINTS shows what uses it: unmount it there, or export its pool
then again: ${ways.command}; or with its power cut: zfsdev stop ${machine} && ${ways.command}`,
      data: { name: machine, disk: disk.name },
      cause: error,
    },
  );
}

/** The disk with the place it is in, or its place of before if that is free, or a free one. */
async function withFreePlace(
  qmp: Qmp,
  machine: string,
  { spec }: Instance,
  disk: DiskDevice,
  ways: WaysOut,
): Promise<DiskDevice> {
  if (disk.interface === 'none') return disk;
  const ids = await deviceIds(qmp);
  if (ids.has(deviceOf(disk))) return disk;
  const isScsi = disk.interface === 'scsi';
  if (isScsi && !ids.has(scsiBus)) {
    const why = 'it has no scsi controller, which comes with the first scsi disk at its next start';
    throw fixed(machine, disk, why, ways);
  }
  const ports = [...(await portsIn(qmp, ids)).values()];
  const isFree = (number: number): boolean =>
    !ports.some((port) => port.bus === disk.interface && port.number === number);
  const numbers = isScsi
    ? Array.from({ length: 256 }, (_, i) => i)
    : Array.from({ length: diskPorts }, (_, i) => i + 1);
  const wanted = disk.port !== undefined && numbers.includes(disk.port) ? [disk.port] : [];
  const port = [...wanted, ...numbers].find(isFree);
  if (port !== undefined) return { ...disk, port };
  const names = disksAmong(attachedStorage(spec.storage))
    .filter((one) => one.interface === disk.interface)
    .map((one) => one.name);
  throw fixed(machine, disk, `all of its ${numbers.length} ports are taken (${names.join(', ')})`, ways);
}

/** Writes down a disk, and where each disk is in QEMU now, so that all of them are there again after the next start. */
async function writeDown(ctx: Context, qmp: Qmp, instance: Instance, disk: DiskDevice): Promise<Instance> {
  const storage = (instance.spec.storage ?? []).map((one) => (one.name === disk.name ? disk : one));
  const ids = await deviceIds(qmp);
  const plugged = disksAmong(attachedStorage(storage))
    .map(deviceOf)
    .filter((id) => ids.has(id));
  const ports = await portsIn(qmp, plugged);
  const placed = storage.map((one): StorageDevice => {
    const port = ports.get(deviceOf(one))?.number;
    return one.type === 'virtfs' || port === undefined ? one : { ...one, port };
  });
  return writeStorage(ctx, instance, placed, disk);
}
