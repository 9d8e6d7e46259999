import { Failure } from '../core/errors.ts';
import { nearest, type InstanceName } from '../core/names.ts';
import { beforeLoad } from '../core/snapshot-name.ts';
import type { Context } from '../host/context.ts';
import { readTable, type SnapshotDisk } from './snapshot-disks.ts';
import {
  isAbout,
  readBegun,
  readEntries,
  tagOf,
  writeEntries,
  type Begun,
  type SavedMachine,
  type SnapshotEntry,
} from './snapshot-record.ts';

/** A snapshot on one disk. */
export interface SnapshotPart {
  readonly disk: string;
  readonly id: string;
  /** Milliseconds since 1970. */
  readonly date: number;
  /** Bytes of memory saved on this disk. */
  readonly memory: number;
}

/** A snapshot of a machine: what its disks hold under one tag. */
export interface Snapshot {
  readonly name: string;
  /**
   * What the disks call it: another name if it was taken in the place of one of its name, which QEMU can't rename. As long as the
   * older one is there as well, that is its name.
   */
  readonly tag: string;
  /** Of its newest part. */
  readonly date: number;
  /** Bytes; 0 for one of the disks alone. */
  readonly memory: number;
  /** The newest of each disk first. */
  readonly parts: readonly SnapshotPart[];
  /**
   * Disks that were of the set and no longer have it, or are no longer the machine's, or unplugged; of one that was cut off while it
   * was taken, those that don't have it yet.
   */
  readonly lost: readonly string[];
  readonly description?: string;
  readonly saved?: SavedMachine;
}

/** All snapshots on these disks, oldest first. The machine may run: a snapshot is seen once it is whole. */
export async function readSnapshots(
  ctx: Context,
  machine: InstanceName,
  disks: readonly SnapshotDisk[],
): Promise<Snapshot[]> {
  const [entries, begun] = [readEntries(ctx, machine), readBegun(ctx, machine)];
  const tables = await Promise.all(
    disks.map(async ({ name, path }) => ({ name, table: await readTable(path) })),
  );
  const byTag = new Map<string, SnapshotPart[]>();
  for (const { name: disk, table } of tables) {
    // A table has the oldest first.
    for (const { id, name, date, memory } of (table?.snapshots ?? []).toReversed())
      byTag.set(name, [...(byTag.get(name) ?? []), { disk, id, date, memory }]);
  }
  const present = entries.filter((entry) => isAbout(entry, tagOf(entry), byTag.get(tagOf(entry)) ?? []));
  const nameOf = (tag: string, entry: SnapshotEntry | undefined): string => {
    if (entry?.tag === undefined || byTag.has(entry.name)) return tag;
    return present.findLast(({ name }) => name === entry.name) === entry ? entry.name : tag;
  };
  return [...byTag]
    .map(([tag, parts]) => {
      const entry = present.find((each) => tagOf(each) === tag);
      return snapshotOf({ tag, name: nameOf(tag, entry), parts }, entry, begun);
    })
    .sort((a, b) => a.date - b.date);
}

function snapshotOf(
  found: Pick<Snapshot, 'name' | 'tag' | 'parts'>,
  entry: SnapshotEntry | undefined,
  begun: Begun | undefined,
): Snapshot {
  const { tag, parts } = found;
  const taking = begun && { create: begun.name, load: beforeLoad, delete: undefined }[begun.verb];
  const wanted = taking === tag ? (begun?.disks ?? []) : [];
  const set = entry ? entry.parts.map(({ disk }) => disk) : wanted;
  const has = (disk: string): boolean => parts.some((part) => part.disk === disk);
  return {
    ...found,
    date: Math.max(...parts.map(({ date }) => date)),
    memory: Math.max(...parts.map(({ memory }) => memory)),
    lost: set.filter((disk) => !has(disk)),
    ...(entry?.description === undefined ? {} : { description: entry.description }),
    ...(entry?.saved === undefined ? {} : { saved: entry.saved }),
  };
}

/** @throws Failure `not-found` with the nearest name */
export function requireSnapshot(machine: string, snapshots: readonly Snapshot[], name: string): Snapshot {
  const found = snapshots.find((each) => each.name === name);
  if (found) return found;
  const near = nearest(
    name,
    snapshots.map((each) => each.name),
  );
  throw new Failure('not-found', `"${machine}" has no snapshot ${JSON.stringify(name)}`, {
    hint: `${near === undefined ? '' : `did you mean ${JSON.stringify(near)}? `}zfsdev snapshot list ${machine} shows all`,
    data: { instance: machine, snapshot: name },
  });
}

/** Writes down what the disks can't tell of a new snapshot, and forgets what is about none that is there. */
export async function remember(
  ctx: Context,
  machine: InstanceName,
  present: readonly Snapshot[],
  fresh?: Pick<Snapshot, 'name' | 'tag' | 'description' | 'saved'>,
): Promise<void> {
  const known = readEntries(ctx, machine);
  const kept = known.filter(
    (entry) => tagOf(entry) !== fresh?.tag && present.some(({ tag, parts }) => isAbout(entry, tag, parts)),
  );
  const found = present.find(({ tag }) => tag === fresh?.tag);
  const entries = fresh && found ? [...kept, entryOf(fresh, found)] : kept;
  if (entries.length > 0 || known.length > 0) await writeEntries(ctx, machine, entries);
}

function entryOf(
  { name, tag, ...facts }: Pick<Snapshot, 'name' | 'tag' | 'description' | 'saved'>,
  { parts }: Snapshot,
): SnapshotEntry {
  const bare = parts.map(({ disk, id, date }) => ({ disk, id, date }));
  return { name, ...(tag === name ? {} : { tag }), ...facts, parts: bare };
}
