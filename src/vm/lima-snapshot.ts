import { Failure } from '../core/errors.ts';
import type { Channel } from '../guest/channel.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { listLima } from '../lima/limactl.ts';
import { limaSnapshot } from '../lima/snapshot.ts';
import type { Instance } from './instance.ts';
import { readTable } from './snapshot-disks.ts';
import type { SnapshotDriver, SnapshotMachine } from './snapshot-driver.ts';
import type { Snapshot } from './snapshot-list.ts';

/**
 * Snapshots of machines that Lima runs with QEMU. Lima saves a running machine with its memory and a stopped one without,
 * and can't be asked for anything else.
 */
export function limaSnapshots(ctx: Context, channel: (instance: Instance) => Channel): SnapshotDriver {
  return {
    checkTake: (machine, name, memory) => checkTake(ctx, machine, name, memory),
    take: async (machine, name) => {
      await run(ctx, 'create', machine, name);
      if (machine.running) await setClock(ctx, channel(machine.instance));
      return undefined;
    },
    forget: (machine, name) => drop({ ...ctx, signal: new AbortController().signal }, machine, name),
    drop: (machine, { tag }) => drop(ctx, machine, tag),
    revert: (machine, { tag }) => run(ctx, 'apply', machine, tag),
    checkRestore: (machine, snapshot) => checkRestore(ctx, machine, snapshot),
    restore: async (machine, { tag }, _undo, deadline) => {
      const way = channel(machine.instance);
      // A guest of before knows nothing of a connection that was made since: whoever kept it would wait in vain.
      await way.close();
      await run(ctx, 'apply', machine, tag);
      await setClock(ctx, way);
      await requirePool(ctx, machine.instance, way, deadline());
      return machine.instance;
    },
  };
}

function homeOf(ctx: Context, { state }: Instance): string {
  return state.limaHome ?? ctx.paths.lima;
}

async function run(
  ctx: Context,
  verb: 'create' | 'apply' | 'delete',
  { instance }: SnapshotMachine,
  tag: string,
): Promise<void> {
  await limaSnapshot(ctx, homeOf(ctx, instance), verb, instance.name, tag);
}

async function checkTake(
  ctx: Context,
  { instance, running }: SnapshotMachine,
  name: string,
  memory: boolean,
): Promise<void> {
  // They become a word of a command line of QEMU's monitor.
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name)) {
    throw new Failure(
      'unsupported',
      `Lima hands ${JSON.stringify(name)} on to QEMU as it is, which would take it apart`,
      {
        hint: 'use letters, digits, hyphens, dots and underscores; machines of the driver qemu take any name',
      },
    );
  }
  if (running && !memory) {
    throw new Failure('unsupported', `Lima takes snapshots of running machines only with their memory`, {
      hint: `add --memory\nor: zfsdev stop ${instance.name} && zfsdev snapshot create ${instance.name} ${name}\nmachines of the driver qemu can do without`,
    });
  }
  await requireQemu(ctx, instance);
}

async function requireQemu(ctx: Context, instance: Instance): Promise<void> {
  const { vmType = 'qemu' } = await listLima(ctx, homeOf(ctx, instance), instance.name);
  if (vmType === 'qemu') return;
  throw new Failure('unsupported', `Lima runs "${instance.name}" with ${vmType}, which has no snapshots`, {
    hint: 'machines of the driver qemu have them (--driver qemu), and those that Lima runs with vmType qemu',
  });
}

async function drop(ctx: Context, machine: SnapshotMachine, name: string): Promise<void> {
  // Of several that have the name, one goes at a time.
  for (let left = await countOf(machine, name); left > 0; left -= 1) await run(ctx, 'delete', machine, name);
}

async function countOf({ disks }: SnapshotMachine, name: string): Promise<number> {
  const tables = await Promise.all(disks.map(({ path }) => readTable(path)));
  const counts = tables.map((table) => table?.snapshots.filter((each) => each.name === name).length ?? 0);
  return Math.max(0, ...counts);
}

async function checkRestore(
  ctx: Context,
  { instance, running }: SnapshotMachine,
  { name }: Snapshot,
): Promise<void> {
  await requireQemu(ctx, instance);
  if (running) return;
  throw new Failure(
    'unsupported',
    `Lima loads memory only into a running machine, and "${instance.name}" is stopped`,
    {
      hint: `zfsdev start ${instance.name} && zfsdev snapshot load ${instance.name} ${name}\nor only its disks: zfsdev snapshot load ${instance.name} ${name} --no-memory`,
    },
  );
}

/** A machine that stood still is as late as it did. */
async function setClock(ctx: Context, channel: Channel): Promise<void> {
  const now = (Date.now() / 1000).toFixed(3);
  await inGuest(ctx, channel, ['date', '-u', '-s', `@${now}`]);
}

async function requirePool(
  ctx: Context,
  { name, spec }: Instance,
  channel: Channel,
  deadline: Deadline,
): Promise<void> {
  if (!spec.pool) return;
  const words = ['zpool', 'list', '-H', '-o', 'health', spec.pool.name];
  const health = await inGuest(ctx, channel, words, Math.max(1, deadline.left()));
  if (health === 'ONLINE') return;
  throw new Failure('guest', `the pool ${spec.pool.name} of "${name}" is ${health} after the load`, {
    hint: `zfsdev exec ${name} -- zpool status ${spec.pool.name}`,
  });
}

async function inGuest(
  ctx: Context,
  channel: Channel,
  argv: readonly string[],
  deadline = 120_000,
): Promise<string> {
  const { exitCode, stdout, stderr } = await channel.exec(argv, { deadline, signal: ctx.signal });
  if (exitCode === 0) return stdout.trim();
  throw new Failure('guest', `the guest's ${argv[0] ?? ''} failed: ${stderr.trim()}`);
}
