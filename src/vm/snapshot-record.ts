import { rm } from 'node:fs/promises';
import * as v from 'valibot';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { readIfExists, writeFileAtomically } from '../host/files.ts';

const partSchema = v.object({ disk: v.string(), id: v.string(), date: v.number() });
const savedSchema = v.object({
  accelerator: v.picklist(['kvm', 'hvf', 'tcg']),
  /** QEMU's version that saved it. */
  qemu: v.string(),
  /** The host's processor; any will do for an emulated one. */
  cpu: v.optional(v.string()),
  /** A digest of all devices of the machine. */
  devices: v.string(),
});
const entrySchema = v.object({
  name: v.string(),
  /** What the disks call it, where that is not its name: it was taken in the place of another one of its name. */
  tag: v.optional(v.string()),
  description: v.optional(v.string()),
  /** The whole set, as it was taken. */
  parts: v.array(partSchema),
  saved: v.optional(savedSchema),
});
const begunSchema = v.object({
  verb: v.picklist(['create', 'load', 'delete']),
  /** What the disks call it. */
  name: v.string(),
  /** The name of one that is taken in the place of another one. */
  as: v.optional(v.string()),
  /** Of all disks of the set. */
  disks: v.array(v.string()),
  /** One is taken with memory. */
  memory: v.boolean(),
  description: v.optional(v.string()),
});
const fileSchema = v.object({
  version: v.literal(1),
  snapshots: v.array(entrySchema),
  begun: v.optional(begunSchema),
});

/** One snapshot on one disk, as its table has it: an id alone is used again once the snapshot is deleted. */
export type RecordedPart = v.InferOutput<typeof partSchema>;
/** The machine whose memory was saved: only one like it can go on with that. */
export type SavedMachine = v.InferOutput<typeof savedSchema>;
/** What no disk can tell of a snapshot. It never says that there is one. */
export type SnapshotEntry = v.InferOutput<typeof entrySchema>;
/** What was begun on a set of disks, and may have been cut off on some of them. */
export type Begun = v.InferOutput<typeof begunSchema>;

/** All entries, those of snapshots that are gone included. A file that is damaged or gone has none. */
export function readEntries(ctx: Context, name: InstanceName): SnapshotEntry[] {
  return readRecord(ctx, name).snapshots;
}

/** What was begun and is not through: somebody is at it now, or it was cut off. */
export function readBegun(ctx: Context, name: InstanceName): Begun | undefined {
  return readRecord(ctx, name).begun;
}

function readRecord(ctx: Context, name: InstanceName): v.InferOutput<typeof fileSchema> {
  const text = readIfExists(ctx.paths.instance(name).snapshots);
  const none = { version: 1 as const, snapshots: [] };
  try {
    return text === undefined ? none : v.parse(fileSchema, JSON.parse(text));
  } catch {
    return none;
  }
}

/** Replaces all entries; whatever was begun is through with it. The caller holds the instance's lock. */
export function writeEntries(
  ctx: Context,
  name: InstanceName,
  snapshots: readonly SnapshotEntry[],
): Promise<void> {
  return writeRecord(ctx, name, snapshots);
}

/** Writes down what is begun, before anything is done. The caller holds the instance's lock. */
export function writeBegun(ctx: Context, name: InstanceName, begun: Begun): Promise<void> {
  return writeRecord(ctx, name, readEntries(ctx, name), begun);
}

/** What was begun is through, or all of it undone. The caller holds the instance's lock. */
export async function clearBegun(ctx: Context, name: InstanceName): Promise<void> {
  const { snapshots, begun } = readRecord(ctx, name);
  if (!begun) return;
  // A machine without snapshots has no such file.
  if (snapshots.length === 0) await rm(ctx.paths.instance(name).snapshots, { force: true });
  else await writeRecord(ctx, name, snapshots);
}

async function writeRecord(
  ctx: Context,
  name: InstanceName,
  snapshots: readonly SnapshotEntry[],
  begun?: Begun,
): Promise<void> {
  const { snapshots: path } = ctx.paths.instance(name);
  const record = { version: 1, snapshots, ...(begun ? { begun } : {}) };
  await writeFileAtomically(path, `${JSON.stringify(record, null, 2)}\n`);
}

/** What the disks call the snapshot that an entry is about. */
export function tagOf({ name, tag }: SnapshotEntry): string {
  return tag ?? name;
}

/** Whether an entry is about what is there: any of its parts, by tag, id and date. */
export function isAbout(entry: SnapshotEntry, tag: string, parts: readonly RecordedPart[]): boolean {
  return (
    tagOf(entry) === tag &&
    entry.parts.some((known) =>
      parts.some(({ disk, id, date }) => known.disk === disk && known.id === id && known.date === date),
    )
  );
}
