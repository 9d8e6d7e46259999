import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { beforeLoad } from '../core/snapshot-name.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import type { Qmp } from '../qemu/qmp.ts';
import { jobLeft, runSnapshotJob } from '../qemu/snapshot-job.ts';
import { savedMachine } from './saved-machine.ts';
import { isFull, noRoom } from './snapshot-disks.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';
import { awakened, calmed, listedBy, snapshotDisks, taskOf, watchOf, withQmp } from './snapshot-monitor.ts';
import type { SavedMachine } from './snapshot-record.ts';

/** Takes a snapshot of all disks of a running machine at one moment, and of its memory, for which the guest stands still. */
export async function takeLive(
  ctx: Context,
  machine: SnapshotMachine,
  name: string,
  memory: boolean,
): Promise<SavedMachine | undefined> {
  const { instance } = machine;
  return withQmp(ctx, machine, async (qmp) => {
    try {
      if (memory) await saveMemory(ctx, qmp, machine, name);
      else await snapshotDisks(ctx, qmp, machine, name);
    } catch (error) {
      // It stood still all the same. A guest that can't be told now has other troubles.
      if (memory) await awakened(calmed(ctx), instance, deadlineIn(20_000)).catch(() => undefined);
      throw isFull(error) ? noRoom(error, memory) : error;
    }
    await requireListed(ctx, qmp, machine, name, memory);
    if (!memory) return undefined;
    // It stood still, and its clock with it.
    await awakened(ctx, instance);
    return savedMachine(ctx, instance, qmp.version);
  });
}

async function saveMemory(ctx: Context, qmp: Qmp, machine: SnapshotMachine, name: string): Promise<void> {
  const { name: of, spec } = machine.instance;
  await step(
    ctx.emit,
    'snapshot',
    `Saving the memory of ${of}, which stands still meanwhile`,
    async (progress) => {
      const watch = await watchOf(ctx, machine, (moved) =>
        progress(`${formatBytes(moved)} written, of at most ${formatBytes(spec.memory)}`),
      );
      await runSnapshotJob(qmp, 'snapshot-save', taskOf(machine.disks, name), watch);
    },
  );
}

/** Deletes a snapshot of a running machine from all of the disks that have it. QEMU calls it done if none has it. */
export async function dropLive(ctx: Context, machine: SnapshotMachine, name: string): Promise<void> {
  await withQmp(ctx, machine, (qmp) => dropBy(ctx, qmp, machine, name));
}

/** As `dropLive`, in a conversation that goes on: QEMU has one at a time. */
export async function dropBy(ctx: Context, qmp: Qmp, machine: SnapshotMachine, name: string): Promise<void> {
  const listed = await listedBy(ctx, qmp, machine);
  const having = machine.disks.filter(({ node }) => listed.get(node)?.some((each) => each.name === name));
  if (having.length === 0) return;
  await runSnapshotJob(qmp, 'snapshot-delete', taskOf(having, name), await watchOf(ctx, machine));
}

/**
 * Waits for what a zfsdev that was killed has left a running machine at, and lets go of what was kept for a load that QEMU has
 * brought to its end, or never heard of.
 * @param load the snapshot that it was being taken back to, if it was
 * @throws Failure `wrong-state` if that failed: its memory is half of then and half of now
 */
export async function recoverLive(
  ctx: Context,
  machine: SnapshotMachine,
  load: string | undefined,
): Promise<void> {
  const { name } = machine.instance;
  await withQmp(ctx, machine, async (qmp) => {
    const job = await jobLeft(qmp, await watchOf(ctx, machine));
    if (load === undefined || job?.type !== 'snapshot-load' || job.error === undefined) return;
    throw new Failure(
      'wrong-state',
      `"${name}" could not be taken back to ${JSON.stringify(load)} and must not run on: ${job.error}`,
      {
        hint: `zfsdev stop --force ${name} && zfsdev start ${name} boots it${machine.disks.length > 1 ? ' with its disks as they were before' : ''}`,
      },
    );
  });
  if (load !== undefined) await dropLive(ctx, machine, beforeLoad);
}

/** What was taken is there in QEMU's own list: a job that says it is done is not enough. */
async function requireListed(
  ctx: Context,
  qmp: Qmp,
  machine: SnapshotMachine,
  name: string,
  memory: boolean,
): Promise<void> {
  const listed = await listedBy(ctx, qmp, machine);
  const found = machine.disks.map(({ node }) => listed.get(node)?.find((each) => each.name === name));
  const whole = found.every(Boolean) && (!memory || found.some((each) => (each?.['vm-state-size'] ?? 0) > 0));
  if (!whole)
    throw new Failure('process', `QEMU says that ${JSON.stringify(name)} was taken, and does not list it`);
}
