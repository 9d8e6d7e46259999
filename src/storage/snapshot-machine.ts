import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { chooseDisks, disksOf, type SnapshotDisk } from '../vm/snapshot-disks.ts';
import type { SnapshotDriver, SnapshotMachine } from '../vm/snapshot-driver.ts';
import { settleBegun } from '../vm/snapshot-begun.ts';
import { readSnapshots, type Snapshot } from '../vm/snapshot-list.ts';
import { readBegun } from '../vm/snapshot-record.ts';
import { driverOf } from '../vm/drivers.ts';
import type { Driver } from '../vm/driver.ts';
import { withInstanceLock } from '../vm/lifecycle.ts';
import { pauseOf, pauseWords } from '../vm/pause.ts';
import { requireInstance } from '../vm/store.ts';

/** A machine whose lock is held, with all that its snapshots need. */
export interface OpenMachine extends SnapshotMachine {
  readonly name: InstanceName;
  readonly driver: Driver;
  readonly snapshots: SnapshotDriver;
  /** All disks that can hold snapshots, the set among them. */
  readonly all: readonly SnapshotDisk[];
  /** Names of disks that can't. */
  readonly others: readonly string[];
  /** What there was before something that was cut off has been settled. */
  readonly before: readonly Snapshot[];
}

/**
 * Locks a machine that can be worked on and finds its disks.
 * @param disks those that are asked for; all that can hold snapshots if empty
 * @throws Failure `not-found`, `locked`, `wrong-state` for a broken one
 */
export async function withMachine<T>(
  ctx: Context,
  name: InstanceName,
  disks: readonly string[],
  work: (machine: OpenMachine) => Promise<T>,
): Promise<T> {
  await requireInstance(ctx, name);
  return withInstanceLock(ctx, name, async () => work(await openMachine(ctx, name, disks)));
}

async function openMachine(
  ctx: Context,
  name: InstanceName,
  wanted: readonly string[],
): Promise<OpenMachine> {
  const found = await requireInstance(ctx, name, { lockIsOurs: true });
  if (found.status === 'broken') {
    throw new Failure('wrong-state', `"${name}" is broken: ${found.reason}`, {
      hint: `zfsdev inspect ${name}`,
    });
  }
  const { instance } = found;
  const set = await disksOf(ctx, instance);
  const driver = driverOf(ctx, instance);
  const running = found.status === 'running';
  const before = readBegun(ctx, name) ? await readSnapshots(ctx, name, set.disks) : [];
  await settleBegun(ctx, { instance, running, disks: set.disks }, driver.snapshots);
  return {
    name,
    instance,
    running,
    disks: chooseDisks(name, set, wanted),
    all: set.disks,
    others: set.others,
    before,
    driver,
    snapshots: driver.snapshots,
  };
}

/**
 * A snapshot that was cut off while it was taken in the place of another one, or that one, may have had the name before.
 * @throws Failure `wrong-state` if the name is another one's by now
 */
export function requireMeant({ name: machine, before }: OpenMachine, { name, tag }: Snapshot): void {
  const seen = before.find((each) => each.name === name);
  if (seen === undefined || seen.tag === tag) return;
  throw new Failure(
    'wrong-state',
    `another snapshot of "${machine}" has the name ${JSON.stringify(name)} now that what was cut off is settled`,
    {
      hint: `zfsdev snapshot list ${machine} shows what there is; the same command again means the one of now`,
    },
  );
}

/** @throws Failure `wrong-state` for a running machine that stands still: its guest can't be asked for anything. */
export async function requireAwake(ctx: Context, name: InstanceName): Promise<void> {
  const pause = await pauseOf(ctx, await requireInstance(ctx, name, { lockIsOurs: true }));
  if (pause === undefined) return;
  throw new Failure('wrong-state', `"${name}" stands still: ${pauseWords[pause]}`, {
    hint: `zfsdev resume ${name}`,
  });
}
