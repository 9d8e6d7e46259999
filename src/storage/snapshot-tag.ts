import { Failure } from '../core/errors.ts';
import type { SnapshotName } from '../core/snapshot-name.ts';
import { freeTag } from '../core/snapshot-name.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import { readSnapshots, type Snapshot } from '../vm/snapshot-list.ts';
import type { OpenMachine } from './snapshot-machine.ts';

/** What a new snapshot is called, and what its disks are to call it. */
export interface SnapshotTag {
  readonly name: SnapshotName;
  readonly tag: string;
  /** The one of this name that it is to take the place of. */
  readonly old?: Snapshot;
}

/**
 * Finds the tag under which a new snapshot is taken. QEMU takes no two of one tag while a machine runs, and renames none: what is
 * to be replaced stays, so the new one has a tag of its own, and is known by its name once the older one is gone.
 * @throws Failure `already-exists`, `wrong-state` where only some disks of a set would be replaced
 */
export async function placeFor(
  ctx: Context,
  machine: OpenMachine,
  name: SnapshotName,
  { overwrite }: { readonly overwrite: boolean },
): Promise<SnapshotTag> {
  const present = await readSnapshots(ctx, machine.name, machine.all);
  const tags = new Set(present.map(({ tag }) => tag));
  const old = present.find((each) => each.name === name);
  if (!old) {
    if (!tags.has(name)) return { name, tag: name };
    throw taken(machine.name, name, 'the disks call another one so; another name does');
  }
  const isOn = (disk: string): boolean => machine.disks.some((each) => each.name === disk);
  // The same name on other disks, one by one.
  if (!old.parts.some(({ disk }) => isOn(disk))) return { name, tag: old.tag };
  if (!overwrite)
    throw taken(
      machine.name,
      name,
      'another name, or --overwrite: the old one is deleted once the new one is taken',
    );
  requireAllOf(machine, old, isOn);
  return { name, tag: tags.has(name) ? freeTag(name, tags) : name, old };
}

function taken(machine: string, name: string, hint: string): Failure {
  return new Failure('already-exists', `"${machine}" has a snapshot ${JSON.stringify(name)} already`, {
    hint,
    data: { instance: machine, snapshot: name },
  });
}

/** What is left of a set on other disks would be of another moment under the same name. */
function requireAllOf(
  { name: machine }: OpenMachine,
  { name, parts }: Snapshot,
  isOn: (disk: string) => boolean,
): void {
  const other = parts.find(({ disk }) => !isOn(disk));
  if (!other) return;
  const command = printable(['zfsdev', 'snapshot', 'delete', machine, name]);
  throw new Failure(
    'wrong-state',
    `the snapshot ${JSON.stringify(name)} is on "${other.disk}" too, and only the whole of it is replaced`,
    { hint: `without --disk, or first: ${command}` },
  );
}
