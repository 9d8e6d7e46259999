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
  description: v.optional(v.string()),
  /** The whole set, as it was taken. */
  parts: v.array(partSchema),
  saved: v.optional(savedSchema),
});
const fileSchema = v.object({ version: v.literal(1), snapshots: v.array(entrySchema) });

/** One snapshot on one disk, as its table has it: an id alone is used again once the snapshot is deleted. */
export type RecordedPart = v.InferOutput<typeof partSchema>;
/** The machine whose memory was saved: only one like it can go on with that. */
export type SavedMachine = v.InferOutput<typeof savedSchema>;
/** What no disk can tell of a snapshot. It never says that there is one. */
export type SnapshotEntry = v.InferOutput<typeof entrySchema>;

/** All entries, those of snapshots that are gone included. A file that is damaged or gone has none. */
export function readEntries(ctx: Context, name: InstanceName): SnapshotEntry[] {
  const text = readIfExists(ctx.paths.instance(name).snapshots);
  try {
    return text === undefined ? [] : v.parse(fileSchema, JSON.parse(text)).snapshots;
  } catch {
    return [];
  }
}

/** The caller holds the instance's lock. */
export async function writeEntries(
  ctx: Context,
  name: InstanceName,
  snapshots: readonly SnapshotEntry[],
): Promise<void> {
  const { snapshots: path } = ctx.paths.instance(name);
  await writeFileAtomically(path, `${JSON.stringify({ version: 1, snapshots }, null, 2)}\n`);
}

/** Whether an entry is about what is there: any of its parts, by name, id and date. */
export function isAbout(entry: SnapshotEntry, name: string, parts: readonly RecordedPart[]): boolean {
  return (
    entry.name === name &&
    entry.parts.some((known) =>
      parts.some(({ disk, id, date }) => known.disk === disk && known.id === id && known.date === date),
    )
  );
}
