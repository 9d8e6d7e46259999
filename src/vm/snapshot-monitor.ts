import type { GuestFacts } from '../guest/agent-channel.ts';
import { awakenGuest } from '../guest/agent-channel.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { actualSize } from '../host/files.ts';
import { bytesMovedBy, takenByDisksOf } from '../host/process-activity.ts';
import { connectQmp, type Qmp } from '../qemu/qmp.ts';
import type { SnapshotTask } from '../qemu/snapshot-job.ts';
import { unlessStalled, unlimited, type Watch } from '../qemu/stall.ts';
import { agentTarget } from './agent-target.ts';
import type { Instance } from './instance.ts';
import { findMachine } from './machine-process.ts';
import type { SnapshotDisk } from './snapshot-disks.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';

/** So long may QEMU read and write nothing before it counts as hung. The network file system of a host may pause for minutes. */
const stall = 180_000;

/** A conversation with the QEMU of a machine, however long that is busy before. */
export async function withQmp<T>(
  ctx: Context,
  machine: SnapshotMachine,
  work: (qmp: Qmp) => Promise<T>,
): Promise<T> {
  const { qmp: socket } = ctx.paths.instance(machine.instance.name);
  const hangs = new AbortController();
  // A zfsdev that was killed may have left it a job that takes minutes, during which it greets nobody.
  const options = {
    deadline: deadlineIn(unlimited.deadline),
    signal: AbortSignal.any([ctx.signal, hangs.signal]),
  };
  const watch = await watchOf(ctx, machine);
  const qmp = await unlessStalled('QEMU', watch, () => connectQmp(socket, options)).catch(
    (error: unknown) => {
      hangs.abort();
      throw error;
    },
  );
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}

/** What QEMU reads and writes; where that can't be seen, how its disks grow. */
export async function watchOf(
  ctx: Context,
  { instance: { name }, disks }: SnapshotMachine,
  progress?: (bytes: number) => void,
): Promise<Watch> {
  const pid = await findMachine(ctx, ctx.paths.instance(name).pid);
  const ofDisks = (): number => disks.reduce((sum, { path }) => sum + actualSize(path), 0);
  const activity = async (): Promise<number> =>
    (pid === undefined ? undefined : await bytesMovedBy(pid)) ?? ofDisks();
  const waiting = async (): Promise<number | undefined> =>
    pid === undefined ? undefined : takenByDisksOf(pid);
  const wayOut = `look whether the host's disk hangs (dmesg); zfsdev snapshot list ${name} tells what QEMU came to\nif it stays so, zfsdev stop --force ${name} cuts its power, and zfsdev start ${name} boots it`;
  return {
    activity,
    waiting,
    patience: stall,
    signal: ctx.signal,
    wayOut,
    ...(progress ? { progress } : {}),
  };
}

/** All disks in one transaction: each of them, or none. It flushes first, and QEMU answers nobody meanwhile. */
export async function snapshotDisks(
  ctx: Context,
  qmp: Qmp,
  machine: SnapshotMachine,
  name: string,
): Promise<void> {
  const type = 'blockdev-snapshot-internal-sync';
  const actions = machine.disks.map(({ node }) => ({ type, data: { device: node, name } }) as const);
  await unlessStalled("QEMU's transaction", await watchOf(ctx, machine), () =>
    qmp.execute('transaction', { actions }, unlimited),
  );
}

/** Has a machine stand still, for which it flushes its disks, or go on. */
export async function patiently(
  ctx: Context,
  qmp: Qmp,
  machine: SnapshotMachine,
  command: 'stop' | 'cont',
): Promise<void> {
  const watch = await watchOf(ctx, machine);
  await unlessStalled(`QEMU's ${command}`, watch, () => qmp.execute(command, undefined, unlimited));
}

/** Snapshots of all nodes as QEMU has them, by the nodes' names. */
export type Listed = ReadonlyMap<
  string,
  readonly { readonly name: string; readonly 'vm-state-size': number }[]
>;

export async function listedBy(ctx: Context, qmp: Qmp, machine: SnapshotMachine): Promise<Listed> {
  const nodes = await unlessStalled("QEMU's list of snapshots", await watchOf(ctx, machine), () =>
    qmp.execute('query-named-block-nodes', { flat: true }, unlimited),
  );
  return new Map(nodes.map(({ 'node-name': name = '', image }) => [name, image.snapshots ?? []]));
}

/** What a job of QEMU's is about; `holder` is the disk with the memory. */
export function taskOf(disks: readonly SnapshotDisk[], tag: string, holder = disks[0]): SnapshotTask {
  return { tag, devices: disks.map(({ node }) => node), vmstate: holder?.node ?? '' };
}

/** Sets the clock of a machine that stood still; its answer also tells that it runs. */
export function awakened(
  ctx: Context,
  instance: Instance,
  deadline = deadlineIn(120_000),
): Promise<GuestFacts> {
  return awakenGuest(agentTarget(ctx, instance), { deadline, signal: ctx.signal });
}

/** For what must come to its end, whoever interrupts. */
export function calmed(ctx: Context): Context {
  return { ...ctx, signal: new AbortController().signal };
}
