import { Failure } from '../core/errors.ts';
import type { UndoStack } from '../core/undo.ts';
import { awakenGuest, type GuestFacts } from '../guest/agent-channel.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn, type Deadline } from '../host/deadline.ts';
import { actualSize } from '../host/files.ts';
import { bytesMovedBy } from '../host/process-activity.ts';
import { formatBytes } from '../core/bytes.ts';
import { step } from '../core/events.ts';
import { printable } from '../host/run.ts';
import { findQemu, hostArchitecture } from '../qemu/binary.ts';
import { connectQmp, type Qmp } from '../qemu/qmp.ts';
import { runSnapshotJob, type Watch } from '../qemu/snapshot-job.ts';
import { agentTarget } from './agent-target.ts';
import { requireRecorded } from './disk-plan.ts';
import type { Instance } from './instance.ts';
import { findMachine, killMachine } from './machine-process.ts';
import { launch } from './qemu-start.ts';
import { requireSameMachine, savedMachine } from './saved-machine.ts';
import { noRoom, readTable, type SnapshotDisk } from './snapshot-disks.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';
import type { Snapshot } from './snapshot-list.ts';
import type { SavedMachine } from './snapshot-record.ts';
import { writeState } from './store.ts';

/** So long may QEMU read and write nothing before it counts as hung. The network file system of a host may pause for minutes. */
const stall = 180_000;

/** Takes a snapshot of all disks of a running machine at one moment, and of its memory, for which the guest stands still. */
export async function takeLive(
  ctx: Context,
  machine: SnapshotMachine,
  name: string,
  memory: boolean,
): Promise<SavedMachine | undefined> {
  const { instance, disks } = machine;
  return withQmp(ctx, instance, async (qmp) => {
    try {
      if (memory) await saveMemory(ctx, qmp, machine, name);
      else await snapshotDisks(qmp, disks, name);
    } catch (error) {
      // It stood still all the same. A guest that can't be told now has other troubles.
      if (memory) await awakened(calmed(ctx), instance, deadlineIn(20_000)).catch(() => undefined);
      throw isFull(error) ? noRoom(error, memory) : error;
    }
    await requireListed(qmp, disks, name, memory);
    if (!memory) return undefined;
    // It stood still, and its clock with it.
    await awakened(ctx, instance);
    return savedMachine(ctx, instance, qmp.version);
  });
}

/** All disks in one transaction: each of them, or none. */
async function snapshotDisks(qmp: Qmp, disks: readonly SnapshotDisk[], name: string): Promise<void> {
  const type = 'blockdev-snapshot-internal-sync';
  const actions = disks.map(({ node }) => ({ type, data: { device: node, name } }) as const);
  // It flushes first, which may take long; QEMU answers nobody meanwhile.
  await qmp.execute('transaction', { actions }, { deadline: 3_600_000 });
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
  await withQmp(ctx, machine.instance, async (qmp) => {
    const listed = await listedBy(qmp);
    const having = machine.disks.filter(({ node }) => listed.get(node)?.some((each) => each.name === name));
    if (having.length === 0) return;
    await runSnapshotJob(qmp, 'snapshot-delete', taskOf(having, name), await watchOf(ctx, machine));
  });
}

/** @throws Failure `wrong-state`, `unsupported` where QEMU would fail half-way, or take another snapshot than the one that is meant. */
export async function checkLiveRestore(
  ctx: Context,
  { instance, running, disks }: SnapshotMachine,
  snapshot: Snapshot,
): Promise<void> {
  for (const { path } of disks) {
    const { snapshots = [] } = (await readTable(path)) ?? {};
    const same = snapshots.filter(({ id, name }) => id === snapshot.name || name === snapshot.name);
    if (same.length < 2) continue;
    throw new Failure(
      'unsupported',
      `${JSON.stringify(snapshot.name)} is the name or number of ${same.length} snapshots in ${path}, and QEMU might load the wrong one`,
      { hint: 'with --no-memory only the disks are taken back, to the newest of them' },
    );
  }
  if (!snapshot.saved) return;
  const version = running
    ? await withQmp(ctx, instance, async (qmp) => {
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
  deadline: Deadline,
): Promise<Instance> {
  const { instance } = machine;
  const calm = calmed(ctx);
  await withQmp(calm, instance, async (qmp) => {
    // By itself QEMU would have the guest go on at once where the load succeeds, and not at all where it fails.
    await qmp.execute('stop');
    try {
      await loadMemory(calm, qmp, machine, snapshot);
    } catch (error) {
      await killMachine(calm, ctx.paths.instance(instance.name).pid);
      throw lost(instance.name, snapshot.name, error);
    }
    await qmp.execute('cont');
  });
  await settle(calm, instance, snapshot.name, deadline);
  return instance;
}

/** For what must come to its end, whoever interrupts. */
function calmed(ctx: Context): Context {
  return { ...ctx, signal: new AbortController().signal };
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
  deadline: Deadline,
): Promise<Instance> {
  const { instance } = machine;
  const paths = ctx.paths.instance(instance.name);
  const accelerator = snapshot.saved?.accelerator ?? instance.state.accelerator ?? 'tcg';
  const still: Instance = { ...instance, state: { ...instance.state, accelerator } };
  undo.add('the running machine', () => killMachine(ctx, paths.pid));
  const running = await launch(ctx, still, undo, 'paused');
  await withQmp(ctx, running, async (qmp) => {
    await loadMemory(ctx, qmp, { ...machine, instance: running }, snapshot);
    await qmp.execute('cont');
  });
  await settle(ctx, running, snapshot.name, deadline);
  const started: Instance = { ...running, state: { ...running.state, phase: 'started' } };
  await writeState(ctx, instance.name, started.state);
  return started;
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
    await runSnapshotJob(qmp, 'snapshot-load', taskOf(machine.disks, snapshot.name, holder), watch);
  });
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

function awakened(ctx: Context, instance: Instance, deadline = deadlineIn(120_000)): Promise<GuestFacts> {
  return awakenGuest(agentTarget(ctx, instance), { deadline, signal: ctx.signal });
}

function taskOf(
  disks: readonly SnapshotDisk[],
  tag: string,
  holder = disks[0],
): { tag: string; devices: string[]; vmstate: string } {
  return { tag, devices: disks.map(({ node }) => node), vmstate: holder?.node ?? '' };
}

/** What QEMU reads and writes; where that can't be seen, how its disks grow. */
async function watchOf(
  ctx: Context,
  { instance, disks }: SnapshotMachine,
  progress?: (bytes: number) => void,
): Promise<Watch> {
  const pid = await findMachine(ctx, ctx.paths.instance(instance.name).pid);
  const ofDisks = (): number => disks.reduce((sum, { path }) => sum + actualSize(path), 0);
  const activity = async (): Promise<number> =>
    (pid === undefined ? undefined : await bytesMovedBy(pid)) ?? ofDisks();
  return { activity, patience: stall, signal: ctx.signal, ...(progress ? { progress } : {}) };
}

type Listed = ReadonlyMap<string, readonly { readonly name: string; readonly 'vm-state-size': number }[]>;

async function listedBy(qmp: Qmp): Promise<Listed> {
  const nodes = await qmp.execute('query-named-block-nodes', { flat: true });
  return new Map(nodes.map(({ 'node-name': name = '', image }) => [name, image.snapshots ?? []]));
}

/** What was taken is there in QEMU's own list: a job that says it is done is not enough. */
async function requireListed(
  qmp: Qmp,
  disks: readonly SnapshotDisk[],
  name: string,
  memory: boolean,
): Promise<void> {
  const listed = await listedBy(qmp);
  const found = disks.map(({ node }) => listed.get(node)?.find((each) => each.name === name));
  const whole = found.every(Boolean) && (!memory || found.some((each) => (each?.['vm-state-size'] ?? 0) > 0));
  if (!whole)
    throw new Failure('process', `QEMU says that ${JSON.stringify(name)} was taken, and does not list it`);
}

function isFull(error: unknown): error is Failure {
  if (!(error instanceof Failure)) return false;
  return /No space left on device|-28\b|Error while writing VM state/.test(
    `${error.message} ${error.detail ?? ''}`,
  );
}

async function withQmp<T>(ctx: Context, { name }: Instance, work: (qmp: Qmp) => Promise<T>): Promise<T> {
  const { qmp: socket } = ctx.paths.instance(name);
  // A zfsdev that was killed may have left it a job that takes minutes, during which it greets nobody.
  const qmp = await connectQmp(socket, { deadline: deadlineIn(stall), signal: ctx.signal });
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}
