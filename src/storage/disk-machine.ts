import { Failure } from '../core/errors.ts';
import { nearest, type InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { connectQmp, type Qmp } from '../qemu/qmp.ts';
import { disksAmong, type DiskDevice } from '../template/storage.ts';
import type { Inspection, Instance } from '../vm/instance.ts';
import { withInstanceLock } from '../vm/lifecycle.ts';
import { driverOf } from '../vm/drivers.ts';
import { settleBegun } from '../vm/snapshot-begun.ts';
import { disksOf, rootDisk } from '../vm/snapshot-disks.ts';
import { readBegun } from '../vm/snapshot-record.ts';
import { requireInstance } from '../vm/store.ts';

/** A machine of the built-in driver whose disks are changed. */
export interface DiskMachine {
  readonly name: InstanceName;
  readonly instance: Instance;
  readonly running: boolean;
}

/** A QEMU that saves memory greets nobody meanwhile; whoever holds the lock does that, so it is over soon. */
const patience = 60_000;

/**
 * Locks a machine whose disks can be changed, and settles what was cut off on them.
 * @throws Failure `not-found`, `locked`, `unsupported` for one of Lima's, `wrong-state` for a broken one
 */
export async function withDisks<T>(
  ctx: Context,
  name: InstanceName,
  work: (machine: DiskMachine) => Promise<T>,
): Promise<T> {
  refuseLima(await requireInstance(ctx, name));
  return withInstanceLock(ctx, name, async () => {
    const found = await requireInstance(ctx, name, { lockIsOurs: true });
    refuseLima(found);
    const machine = openMachine(found);
    await settleSnapshots(ctx, machine);
    return work(machine);
  });
}

/** A set that is being taken back, or taken, needs all of its disks as they were then. @throws Failure as `settleBegun` */
async function settleSnapshots(ctx: Context, { name, instance, running }: DiskMachine): Promise<void> {
  if (readBegun(ctx, name) === undefined) return;
  const set = await disksOf(ctx, instance).catch((error: unknown) => {
    // A disk that is gone has to be taken from the machine before the others can be settled.
    if (error instanceof Failure && error.reason === 'files') return undefined;
    throw error;
  });
  if (set === undefined) return;
  await settleBegun(ctx, { instance, running, disks: set.disks }, driverOf(ctx, instance).snapshots);
}

/** @throws Failure `wrong-state` for a broken one */
export function openMachine(found: Inspection): DiskMachine {
  const { name } = found;
  if (found.status !== 'broken') {
    return { name, instance: found.instance, running: found.status !== 'stopped' };
  }
  const cutOff = found.instance?.state.phase === 'starting';
  throw new Failure('wrong-state', `"${name}" is broken: ${found.reason}`, {
    hint: cutOff ? `zfsdev start ${name} mends it` : `zfsdev inspect ${name}`,
    data: { name },
  });
}

/** @throws Failure `unsupported` that names the driver which has it */
export function refuseLima({ name, instance }: Inspection): void {
  if (instance?.state.driver !== 'lima') return;
  throw new Failure('unsupported', `"${name}" is run by Lima, whose machines have one disk`, {
    hint: 'machines of the driver qemu have as many as they are given (--driver qemu)',
    data: { name },
  });
}

/** Talks to the QEMU of a running machine. */
export async function withMonitor<T>(
  ctx: Context,
  name: InstanceName,
  work: (qmp: Qmp) => Promise<T>,
): Promise<T> {
  const options = { deadline: deadlineIn(patience), signal: ctx.signal };
  const qmp = await connectQmp(ctx.paths.instance(name).qmp, options);
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}

/**
 * A disk of the machine's storage, by its name.
 * @throws Failure `not-found` with the names that there are, `unsupported` for the one with the root file system
 */
export function requireDisk({ name: machine, instance }: DiskMachine, name: string): DiskDevice {
  if (name === rootDisk) {
    throw new Failure(
      'unsupported',
      `"${machine}" boots from its disk "${rootDisk}", which stays where it is`,
      {
        hint: `zfsdev disk resize ${machine} ${rootDisk} SIZE is what can be done with it`,
      },
    );
  }
  const disks = disksAmong(instance.spec.storage);
  const found = disks.find((disk) => disk.name === name);
  if (found) return found;
  throw unknownDisk(machine, [rootDisk, ...disks.map((disk) => disk.name)], name);
}

/** The failure for a name that no disk has. */
export function unknownDisk(machine: string, names: readonly string[], name: string): Failure {
  const near = nearest(name, names);
  const advice = near === undefined ? '' : `did you mean "${near}"? `;
  return new Failure('not-found', `"${machine}" has no disk ${JSON.stringify(name)}`, {
    hint: `${advice}its disks: ${names.join(', ')}`,
    data: { name: machine, disks: names },
  });
}

/** The failure for a disk whose file is gone. */
export function noFile(machine: string, disk: string, path: string): Failure {
  return new Failure('files', `the file of "${disk}", ${path}, is not there`, {
    hint: `put it back, or forget the disk: zfsdev disk remove ${machine} ${disk}`,
    data: { name: machine, disk, path },
  });
}
