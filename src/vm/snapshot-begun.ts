import type { Context } from '../host/context.ts';
import type { SnapshotDriver, SnapshotMachine } from './snapshot-driver.ts';
import { readSnapshots, remember } from './snapshot-list.ts';
import { clearBegun, readBegun, type Begun } from './snapshot-record.ts';

/**
 * Settles what was begun on a machine's disks and cut off by a power cut or a killed zfsdev: a set that is on all of its disks
 * is kept, of one that is not nothing stays, and disks that were being taken back are of one moment again. Whoever changes the
 * machine's snapshots, or starts it, calls this first, under the instance's lock.
 * @param machine with all of its disks that can hold snapshots
 * @throws Failure `wrong-state` for a machine that runs and must not go on as it is; `files`, `process`, `deadline`
 */
export async function settleBegun(
  ctx: Context,
  machine: SnapshotMachine,
  snapshots: SnapshotDriver,
): Promise<void> {
  const { name } = machine.instance;
  const begun = readBegun(ctx, name);
  if (!begun) return;
  const disks = machine.disks.filter((disk) => begun.disks.includes(disk.name));
  const set = { ...machine, disks };
  await snapshots.recover?.(set, begun);
  if (begun.verb === 'create') await settleCreate(ctx, { machine, set }, snapshots, begun);
  await clearBegun(ctx, name);
}

async function settleCreate(
  ctx: Context,
  { machine, set }: { readonly machine: SnapshotMachine; readonly set: SnapshotMachine },
  snapshots: SnapshotDriver,
  { name: tag, as: name = tag, memory, description }: Begun,
): Promise<void> {
  const present = await readSnapshots(ctx, machine.instance.name, machine.disks);
  const found = present.find((each) => each.tag === tag);
  const isWhole =
    found !== undefined &&
    set.disks.every((disk) => found.parts.some((part) => part.disk === disk.name)) &&
    (!memory || found.memory > 0);
  if (isWhole) {
    const facts = { name, tag, ...(description === undefined ? {} : { description }) };
    await remember(ctx, machine.instance.name, present, facts);
    if (present.some((each) => each.tag === name && name !== tag))
      warn(
        ctx,
        `the older ${JSON.stringify(name)} is still there; until it is deleted the new one is listed as ${JSON.stringify(tag)}`,
      );
    return;
  }
  await snapshots.forget(set, tag);
  if (!found) return;
  warn(ctx, `the snapshot ${JSON.stringify(name)} was cut off before it was whole, and was taken away`);
}

function warn(ctx: Context, text: string): void {
  ctx.emit({ type: 'notice', level: 'warning', text });
}
