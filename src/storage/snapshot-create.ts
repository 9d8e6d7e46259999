import { MiB } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { SnapshotName } from '../core/snapshot-name.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { flush } from '../host/files.ts';
import { printable } from '../host/run.ts';
import { reserveSnapshot } from '../vm/admission.ts';
import { requireSound } from '../vm/snapshot-disks.ts';
import { readSnapshots, remember, type Snapshot } from '../vm/snapshot-list.ts';
import { clearBegun, writeBegun, type Begun } from '../vm/snapshot-record.ts';
import { inspect } from '../vm/store.ts';
import { dropSnapshot } from './snapshot-delete.ts';
import { requireAwake, withMachine, type OpenMachine } from './snapshot-machine.ts';
import { placeFor, type SnapshotTag } from './snapshot-tag.ts';

export interface CreateSnapshot {
  /** Of these disks only; of all that can hold one if empty. */
  readonly disks: readonly string[];
  /** Of a running machine. */
  readonly live: boolean;
  /** Its memory too. */
  readonly memory: boolean;
  /** In the place of one of this name. */
  readonly overwrite: boolean;
  readonly description?: string;
  /** Go on although what it may take doesn't fit beside the worst case of everything. */
  readonly overcommit: boolean;
}

/**
 * Milliseconds that a guest is given to write down what it holds back: its memory may be full of that, and no disk takes less than
 * a MiB a second.
 */
export function syncPatience(memory: number): number {
  return Math.max(3_600_000, (memory / MiB) * 1_000);
}

/**
 * Takes a snapshot of a machine: of all of its disks at one moment, and of its memory if asked for. It is there, whole and
 * listed, or nothing of it stays. One that it takes the place of is deleted only then.
 * @throws Failure `wrong-state` with both ways out, `already-exists`, `no-space`, `unsupported`, `files`, `process`,
 *   `interrupted`
 */
export async function createSnapshot(
  ctx: Context,
  instance: InstanceName,
  name: SnapshotName,
  wanted: CreateSnapshot,
): Promise<Snapshot> {
  return withMachine(ctx, instance, wanted.disks, async (machine) => {
    requireState(machine, name, wanted);
    await requireSound(machine.disks);
    await machine.snapshots.checkTake(machine, name, wanted.memory);
    if (machine.running) await requireAwake(ctx, instance);
    const place = await placeFor(ctx, machine, name, wanted);
    sayWhatIsLeftOut(ctx, machine, wanted);
    return withUndo(async (undo) => {
      const reserved = await step(ctx.emit, 'budget', 'Checking the disk space of the worst case', () =>
        reserveSnapshot(ctx, instance, {
          disks: machine.disks.map(({ path }) => path),
          memory: wanted.memory ? machine.instance.spec.memory : 0,
          overcommit: wanted.overcommit,
        }),
      );
      undo.add('the reservation', reserved.release);
      if (machine.running) await writeDown(ctx, machine);
      const made = await takeOrUndo(ctx, machine, place, wanted);
      if (place.old) await dropOld(ctx, machine, place.old, made);
      await reserved.release();
      return made;
    });
  });
}

function takeOrUndo(
  ctx: Context,
  machine: OpenMachine,
  place: SnapshotTag,
  wanted: CreateSnapshot,
): Promise<Snapshot> {
  return withUndo(async (undo) => {
    await writeBegun(ctx, machine.name, begunOf(machine, place, wanted));
    undo.add('the half-made snapshot', async () => {
      // What can't be taken away now stays written down, and is settled by the next command.
      await machine.snapshots.forget(machine, place.tag);
      await clearBegun(ctx, machine.name);
    });
    return take(ctx, machine, place, wanted);
  });
}

function begunOf(
  { disks }: OpenMachine,
  { name, tag }: SnapshotTag,
  { memory, description }: CreateSnapshot,
): Begun {
  const facts = { name: tag, disks: disks.map((disk) => disk.name), memory };
  return {
    verb: 'create',
    ...facts,
    ...(tag === name ? {} : { as: name }),
    ...(description === undefined ? {} : { description }),
  };
}

/** A failure leaves both, whole or told as what is left: the new one has the name once the older one is gone. */
async function dropOld(ctx: Context, machine: OpenMachine, old: Snapshot, made: Snapshot): Promise<void> {
  try {
    await dropSnapshot(ctx, machine, old);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const text = `the new ${JSON.stringify(made.name)} is taken, and the older one could not be deleted: ${error.message}`;
    throw new Failure(error.reason, text, {
      ...(error.detail === undefined ? {} : { detail: error.detail }),
      hint: `${printable(['zfsdev', 'snapshot', 'delete', machine.name, old.tag])} deletes it; until then the new one is listed as ${JSON.stringify(made.tag)}`,
      cause: error,
    });
  }
}

/** @throws Failure `wrong-state` that names both ways out */
function requireState(
  { name: machine, running }: OpenMachine,
  name: SnapshotName,
  { live, memory }: CreateSnapshot,
): void {
  const command = printable(['zfsdev', 'snapshot', 'create', machine, name]);
  const flags = `--live${memory ? ' --memory' : ''}`;
  if (live && !running) {
    throw new Failure(
      'wrong-state',
      `"${machine}" is stopped, and ${flags} takes a snapshot of a running machine`,
      {
        hint: `zfsdev start ${machine} && ${command} ${flags}\nor of the stopped machine, without ${flags}: ${command}`,
        data: { name: machine, running },
      },
    );
  }
  if (!live && running) {
    throw new Failure(
      'wrong-state',
      `"${machine}" is running, and only --live takes a snapshot of a running machine`,
      {
        hint: `zfsdev stop ${machine} && ${command}\nor while it runs: ${command} --live`,
        data: { name: machine, running },
      },
    );
  }
}

function sayWhatIsLeftOut(ctx: Context, { others }: OpenMachine, { disks }: CreateSnapshot): void {
  if (others.length === 0 || disks.length > 0) return;
  const text = `left out, as only a qcow2 can hold snapshots: ${others.join(', ')}`;
  ctx.emit({ type: 'notice', level: 'info', text });
}

/** Has all written down that is held back, so that the snapshot has what was written before it. */
async function writeDown(ctx: Context, machine: OpenMachine): Promise<void> {
  await syncGuest(ctx, machine);
  // And this host: QEMU would have it done while the machine stands still.
  for (const { path } of machine.disks) await flush(path);
}

async function syncGuest(ctx: Context, { instance, driver }: OpenMachine): Promise<void> {
  await step(ctx.emit, 'sync', `Having ${instance.name} write down what it holds back`, async () => {
    // Beside each other, as starting the two is most of it: a pool flushes what it stands on itself.
    const script = instance.spec.pool ? 'sync & zpool sync && wait $!' : 'exec sync';
    const options = { deadline: syncPatience(instance.spec.memory), signal: ctx.signal };
    const { exitCode, stderr } = await driver.channel(instance).exec(['sh', '-c', script], options);
    if (exitCode === 0) return;
    throw new Failure('guest', `"${instance.name}" could not write down what it holds back`, {
      detail: stderr,
      hint: `zfsdev exec ${instance.name} -- zpool status tells of a pool that is suspended`,
    });
  });
}

async function take(
  ctx: Context,
  machine: OpenMachine,
  { name, tag }: SnapshotTag,
  { memory, description }: CreateSnapshot,
): Promise<Snapshot> {
  try {
    const saved = await machine.snapshots.take(machine, tag, memory);
    const present = await readSnapshots(ctx, machine.name, machine.all);
    const found = present.find((each) => each.tag === tag);
    requireWhole(machine, found, name, memory);
    const facts = {
      name,
      tag,
      ...(description === undefined ? {} : { description }),
      ...(saved ? { saved } : {}),
    };
    await remember(ctx, machine.name, present, facts);
    return { ...found, ...facts };
  } catch (error) {
    throw await withDeath(ctx, machine, error);
  }
}

/** What was taken is there on each disk as the files have it, whoever said that it is done. */
function requireWhole(
  { name: machine, disks }: OpenMachine,
  found: Snapshot | undefined,
  name: string,
  memory: boolean,
): asserts found is Snapshot {
  const missing = disks.filter((disk) => !found?.parts.some((part) => part.disk === disk.name));
  if (found && missing.length === 0 && (!memory || found.memory > 0)) return;
  throw new Failure(
    'process',
    `the snapshot ${JSON.stringify(name)} was taken, and "${machine}" does not have it`,
    {
      detail: missing.map((disk) => `not in ${disk.path}`).join('\n'),
      hint: 'was a disk file moved or replaced while the machine runs?',
    },
  );
}

/** A machine that died meanwhile is why, whatever QEMU's last words were. */
async function withDeath(ctx: Context, { name, running }: OpenMachine, error: unknown): Promise<unknown> {
  if (!running || !(error instanceof Failure) || error.reason !== 'process') return error;
  const now = await inspect(ctx, name, { lockIsOurs: true });
  if (now?.status !== 'stopped') return error;
  return new Failure('guest', `"${name}" died while its snapshot was taken, of which nothing stays`, {
    detail: error.message,
    hint: `zfsdev start ${name} starts it again`,
    cause: error,
  });
}
