import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { deviceIds, portsIn, type DiskPlan } from '../qemu/plug.ts';
import type { Qmp } from '../qemu/qmp.ts';
import { blockNodes, frontend, plannedPorts, portPlace, secretOf } from '../qemu/storage-argv.ts';
import { disksAmong, type DiskDevice } from '../template/storage.ts';
import type { Instance } from './instance.ts';
import { diskDrive, drivesOf } from './storage-devices.ts';
import { deviceOf } from './storage-places.ts';

/** All that a disk is to a running QEMU, in the place that it says; the same as it has after the next start. */
export function planOf(ctx: Pick<Context, 'paths'>, instance: InstanceName, disk: DiskDevice): DiskPlan {
  const drive = diskDrive(ctx, instance, disk);
  const secret = secretOf(drive);
  const device = frontend(drive, portPlace(drive, disk.port));
  return { objects: secret ? [secret] : [], nodes: blockNodes(drive), ...(device ? { device } : {}) };
}

/**
 * Looks whether a running machine has the disks that are written down, each where it is after a start: memory that is saved with
 * any others could never be loaded again.
 * @throws Failure `wrong-state` that names the first one, after a command for it was cut off
 */
export async function requireRecorded(
  ctx: Pick<Context, 'paths'>,
  qmp: Qmp,
  { name, spec }: Instance,
): Promise<void> {
  const disks = disksAmong(spec.storage);
  if (disks.length === 0) return;
  const ids = await deviceIds(qmp);
  const seen = disks.filter((disk) => disk.interface !== 'none');
  const ports = await portsIn(
    qmp,
    seen.map(deviceOf).filter((id) => ids.has(id)),
  );
  const planned = plannedPorts(drivesOf(ctx, name, spec.storage).filter((drive) => drive.kind === 'disk'));
  const odd = seen.find((disk) => {
    const id = deviceOf(disk);
    return ids.has(id) === (disk.detached === true) || ports.get(id)?.number !== planned.get(id);
  });
  if (!odd) return;
  const command = (verb: string): string => `zfsdev disk ${verb} ${name} ${odd.name}`;
  throw new Failure('wrong-state', `"${odd.name}" of "${name}" is not as it is written down`, {
    hint: `what was cut off is completed by ${command('attach')}, or ${command('detach')}; then again`,
    data: { name, disk: odd.name },
  });
}
