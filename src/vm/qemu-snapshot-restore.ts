import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { beforeLoad } from '../core/snapshot-name.ts';
import type { UndoStack } from '../core/undo.ts';
import { formatBytes } from '../core/bytes.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { printable } from '../host/run.ts';
import { findQemu, hostArchitecture } from '../qemu/binary.ts';
import type { Qmp } from '../qemu/qmp.ts';
import { runSnapshotJob } from '../qemu/snapshot-job.ts';
import { requireRecorded } from './disk-plan.ts';
import type { Instance } from './instance.ts';
import { findMachine, killMachine } from './machine-process.ts';
import { dropBy } from './qemu-snapshot-live.ts';
import { loadOf, rollBack, rolledBack } from './qemu-snapshot-offline.ts';
import { launch } from './qemu-start.ts';
import { requireSameMachine, savedMachine } from './saved-machine.ts';
import { isFull, noRoom, readTable } from './snapshot-disks.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';
import type { Snapshot } from './snapshot-list.ts';
import { awakened, calmed, patiently, snapshotDisks, taskOf, watchOf, withQmp } from './snapshot-monitor.ts';
import { clearBegun, writeBegun } from './snapshot-record.ts';
import { writeState } from './store.ts';

/** @throws Failure `wrong-state`, `unsupported` where QEMU would fail half-way, or take another snapshot than the one that is meant. */
export async function checkLiveRestore(
  ctx: Context,
  machine: SnapshotMachine,
  snapshot: Snapshot,
): Promise<void> {
  const { instance, running, disks } = machine;
  for (const { path } of disks) {
    const { snapshots = [] } = (await readTable(path)) ?? {};
    const same = snapshots.filter(({ id, name }) => id === snapshot.tag || name === snapshot.tag);
    if (same.length < 2) continue;
    throw new Failure(
      'unsupported',
      `${JSON.stringify(snapshot.tag)} is the name or number of ${same.length} snapshots in ${path}, and QEMU might load the wrong one`,
      { hint: 'with --no-memory only the disks are taken back, to the newest of them' },
    );
  }
  if (!snapshot.saved) return;
  const version = running
    ? await withQmp(ctx, machine, async (qmp) => {
        await requireRecorded(ctx, qmp, instance);
        return qmp.version;
      })
    : (await findQemu(ctx, hostArchitecture())).version.text;
  // A machine that is started for it is started under the accelerator that it was saved under.
  const state = running ? instance.state : { ...instance.state, accelerator: snapshot.saved.accelerator };
  requireSameMachine(
    { instance: instance.name, snapshot: snapshot.name },
    snapshot.saved,
    savedMachine(ctx, { ...instance, state }, version),
  );
}

/** Takes a running machine back, memory and disks. From the moment it begins, an interrupt changes nothing any more. */
export async function restoreLive(
  ctx: Context,
  machine: SnapshotMachine,
  snapshot: Snapshot,
  deadline: () => Deadline,
): Promise<Instance> {
  const { instance } = machine;
  const calm = calmed(ctx);
  await withQmp(calm, machine, async (qmp) => {
    // By itself QEMU would have the guest go on at once where the load succeeds, and not at all where it fails. It flushes.
    await patiently(calm, qmp, machine, 'stop');
    try {
      await keepDisks(calm, qmp, machine, snapshot);
    } catch (error) {
      // Nothing was changed yet: QEMU has kept all of them or none, unless it died over it.
      if ((await findMachine(calm, ctx.paths.instance(instance.name).pid)) === undefined) {
        await rolledBack(calm, machine);
      } else {
        await clearBegun(calm, instance.name);
        await dropBy(calm, qmp, machine, beforeLoad).catch(() => undefined);
        await patiently(calm, qmp, machine, 'cont');
      }
      throw isFull(error) ? noRoom(error) : error;
    }
    try {
      await loadMemory(calm, qmp, machine, snapshot);
    } catch (error) {
      await killMachine(calm, ctx.paths.instance(instance.name).pid);
      await rolledBack(calm, machine);
      throw lost(instance.name, snapshot.name, error);
    }
    await patiently(calm, qmp, machine, 'cont');
  });
  await settle(calm, instance, snapshot.name, deadline());
  return instance;
}

/** Neither its memory nor, perhaps, its disks are what they were: it must not run on. */
function lost(instance: string, snapshot: string, cause: unknown): unknown {
  if (!(cause instanceof Failure)) return cause;
  return new Failure(
    cause.reason,
    `"${instance}" could not be taken back to ${JSON.stringify(snapshot)}, and its power was cut: ${cause.message}`,
    {
      hint: `${printable(['zfsdev', 'snapshot', 'load', instance, snapshot])} --no-memory takes only its disks back; zfsdev start ${instance} boots it as they are`,
      cause,
    },
  );
}

/** Starts a stopped machine not by booting it but with the memory of a snapshot. */
export async function restoreStopped(
  ctx: Context,
  machine: SnapshotMachine,
  snapshot: Snapshot,
  undo: UndoStack,
  deadline: () => Deadline,
): Promise<Instance> {
  const { instance } = machine;
  const paths = ctx.paths.instance(instance.name);
  const accelerator = snapshot.saved?.accelerator ?? instance.state.accelerator ?? 'tcg';
  const still: Instance = { ...instance, state: { ...instance.state, accelerator } };
  undo.add('its half-loaded disks', () => rollBack(ctx, machine));
  undo.add('the running machine', () => killMachine(ctx, paths.pid));
  const running = await launch(ctx, still, undo, 'paused');
  const started: SnapshotMachine = { ...machine, instance: running, running: true };
  await withQmp(ctx, started, async (qmp) => {
    await keepDisks(ctx, qmp, started, snapshot);
    await loadMemory(ctx, qmp, started, snapshot);
    await patiently(ctx, qmp, started, 'cont');
  });
  await settle(ctx, running, snapshot.name, deadline());
  const ready: Instance = { ...running, state: { ...running.state, phase: 'started' } };
  await writeState(ctx, instance.name, ready.state);
  return ready;
}

/** QEMU takes back disk by disk, then the memory: where each disk of a set stood is kept until all of it is through. */
async function keepDisks(
  ctx: Context,
  qmp: Qmp,
  machine: SnapshotMachine,
  snapshot: Snapshot,
): Promise<void> {
  await writeBegun(ctx, machine.instance.name, loadOf(machine, snapshot.name));
  if (machine.disks.length === 1) return;
  await snapshotDisks(ctx, qmp, machine, beforeLoad);
}

async function loadMemory(
  ctx: Context,
  qmp: Qmp,
  machine: SnapshotMachine,
  snapshot: Snapshot,
): Promise<void> {
  const holder = machine.disks.find(({ name }) =>
    snapshot.parts.some((part) => part.disk === name && part.memory > 0),
  );
  await step(ctx.emit, 'revert', `Loading the memory of ${machine.instance.name}`, async (progress) => {
    const watch = await watchOf(ctx, machine, (moved) =>
      progress(`${formatBytes(moved)} read, of ${formatBytes(snapshot.memory)}`),
    );
    await runSnapshotJob(qmp, 'snapshot-load', taskOf(machine.disks, snapshot.tag, holder), watch);
  });
  if (machine.disks.length > 1) {
    const kept = taskOf(machine.disks, beforeLoad);
    await runSnapshotJob(qmp, 'snapshot-delete', kept, await watchOf(ctx, machine));
  }
  await clearBegun(ctx, machine.instance.name);
}

/** The guest has its time back and answers, with the pool that it had. */
async function settle(ctx: Context, instance: Instance, snapshot: string, deadline: Deadline): Promise<void> {
  const { pools } = await awakened(ctx, instance, deadline);
  const { pool } = instance.spec;
  const health = pool && pools.find(({ name }) => name === pool.name)?.health;
  if (!pool || health === 'ONLINE') return;
  throw new Failure(
    'guest',
    `"${instance.name}" is back at ${JSON.stringify(snapshot)}, and its pool ${pool.name} is ${health ?? 'not there'}`,
    { hint: `zfsdev exec ${instance.name} -- zpool status ${pool.name}` },
  );
}
