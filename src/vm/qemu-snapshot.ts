import type { UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import type { Instance } from './instance.ts';
import { findMachine } from './machine-process.ts';
import { checkMemory } from './memory-blockers.ts';
import { dropLive, recoverLive, takeLive } from './qemu-snapshot-live.ts';
import { dropOffline, freeLeaks, revert, rollBack, takeOffline } from './qemu-snapshot-offline.ts';
import { checkLiveRestore, restoreLive, restoreStopped } from './qemu-snapshot-restore.ts';
import type { SnapshotDriver, SnapshotMachine } from './snapshot-driver.ts';
import type { Snapshot } from './snapshot-list.ts';
import type { Begun } from './snapshot-record.ts';

/** Snapshots of the built-in driver's machines: by QMP while they run, by qemu-img while they don't. */
export function qemuSnapshots(ctx: Context): SnapshotDriver {
  return {
    checkTake: (machine, name, memory) => checkMemory(ctx, machine, name, memory),
    take: (machine, name, memory) =>
      machine.running
        ? takeLive(ctx, machine, name, memory)
        : takeOffline(ctx, machine, name).then(() => undefined),
    recover: (machine, begun) => recover(ctx, machine, begun),
    forget: (machine, name) => forget(ctx, machine, name),
    drop: (machine, snapshot) =>
      machine.running ? dropLive(ctx, machine, snapshot.tag) : dropOffline(ctx, machine, snapshot.tag),
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
  deadline: () => Deadline,
): Promise<Instance> {
  return machine.running
    ? restoreLive(ctx, machine, snapshot, deadline)
    : restoreStopped(ctx, machine, snapshot, undo, deadline);
}

/** Runs to its end even if it is the answer to an interrupt. */
async function forget(ctx: Context, machine: SnapshotMachine, name: string): Promise<void> {
  const calm: Context = { ...ctx, signal: new AbortController().signal };
  const { pid } = ctx.paths.instance(machine.instance.name);
  if ((await findMachine(calm, pid)) !== undefined) return dropLive(calm, machine, name);
  // A QEMU that was killed may have left clusters that belong to nothing.
  await freeLeaks(calm, machine);
  await dropOffline(calm, machine, name);
}

/**
 * As `SnapshotDriver.recover`. A QEMU whose power is cut in the middle has written down first what it takes, and last what it gives
 * back: whatever it was at, clusters may be left that belong to nothing.
 */
async function recover(ctx: Context, machine: SnapshotMachine, { verb, name }: Begun): Promise<void> {
  if (machine.running) return recoverLive(ctx, machine, verb === 'load' ? name : undefined);
  if (verb === 'load') return rollBack(ctx, machine);
  await freeLeaks(ctx, machine);
}
