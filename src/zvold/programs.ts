import { property } from './inventory.ts';

/**
 * What zvold does in ZFS's channel programs: looking and changing at one moment, by one process, which costs less than either
 * alone. Steps of a program are not undone when a later one fails, so each looks at all that could be in its way first.
 */

const common = `
local function own(dataset, name)
  local value = zfs.get_prop(dataset, name)
  if value == nil then return "" end
  return value
end
local function is_volume(dataset)
  return zfs.exists(dataset) and zfs.get_prop(dataset, "type") == "volume" and own(dataset, "${property.import}") == ""
end
`;

/** How `takeSnapshot` ended. */
export type SnapshotOutcome =
  | {
      readonly outcome: 'taken';
      readonly guid: string;
      readonly creation: number;
      readonly used: number;
      readonly referenced: number;
      readonly volsize: number;
    }
  | { readonly outcome: 'failed'; readonly error: number }
  /** There is no such volume, or a snapshot with this name or id. */
  | { readonly outcome: 'none' | 'there' };

/** Takes a snapshot with an id. Words: the volume, the snapshot's name, its id, and that id again if it is the caller's. */
export const takeSnapshot = `-- zvold: take a snapshot
${common}
local volume, id, given = argv[1], argv[3], argv[4]
if not is_volume(volume) then return { outcome = "none" } end
local snapshot = volume .. "@" .. argv[2]
if zfs.exists(snapshot) then return { outcome = "there" } end
if given ~= "" then
  for each in zfs.list.snapshots(volume) do
    if own(each, "${property.snapshotId}") == given then return { outcome = "there" } end
  end
end
local failed = zfs.sync.snapshot(snapshot)
if failed ~= 0 then return { outcome = "failed", error = failed } end
failed = zfs.sync.set_prop(snapshot, "${property.snapshotId}", id)
if failed ~= 0 then
  zfs.sync.destroy(snapshot)
  return { outcome = "failed", error = failed }
end
return {
  outcome = "taken",
  guid = tostring(zfs.get_prop(snapshot, "guid")),
  creation = zfs.get_prop(snapshot, "creation"),
  used = zfs.get_prop(snapshot, "used"),
  referenced = zfs.get_prop(snapshot, "referenced"),
  volsize = zfs.get_prop(snapshot, "volsize"),
}
`;

/** How `destroyVolume` ended. */
export type DestroyOutcome =
  | { readonly outcome: 'gone'; readonly id: string; readonly guid: string; readonly origin: string }
  | { readonly outcome: 'failed'; readonly error: number }
  /** There is no such volume; or it is open, or something stands on it, and nothing was done. */
  | { readonly outcome: 'none' | 'busy' | 'needed' };

/**
 * Destroys a volume with its snapshots, or does nothing. Word: the volume. That a volume is open is asked of what would take it
 * back to its newest snapshot: nobody can open it between that and its end.
 */
export const destroyVolume = `-- zvold: destroy a volume
${common}
local volume = argv[1]
if not is_volume(volume) then return { outcome = "none" } end
local snapshots = {}
for each in zfs.list.snapshots(volume) do
  if own(each, "${property.template}") ~= "" or zfs.get_prop(each, "userrefs") ~= 0 then return { outcome = "needed" } end
  for clone in zfs.list.clones(each) do return { outcome = "needed" } end
  snapshots[#snapshots + 1] = each
end
local gone = {
  outcome = "gone",
  id = own(volume, "${property.volumeId}"),
  guid = tostring(zfs.get_prop(volume, "guid")),
  origin = own(volume, "origin"),
}
if #snapshots > 0 and zfs.check.rollback(volume) == 16 then return { outcome = "busy" } end
for _, each in ipairs(snapshots) do
  local failed = zfs.sync.destroy(each)
  if failed ~= 0 then return { outcome = "failed", error = failed } end
end
local failed = zfs.sync.destroy(volume)
if failed == 16 then return { outcome = "busy" } end
if failed ~= 0 then return { outcome = "failed", error = failed } end
return gone
`;

/** ZFS's number of a dataset, as a program tells it: with a sign where it is large. */
export function guidOf(told: string): string {
  return BigInt.asUintN(64, BigInt(told)).toString();
}

/** What `tellMade` returns; numbers with a sign where they are large, and the compression ratio in hundredths. */
export type MadeOutcome =
  | {
      readonly outcome: 'made';
      readonly id: string;
      readonly guid: string;
      readonly creation: number;
      readonly used: number;
      readonly referenced: number;
      readonly volsize: number;
      readonly volblocksize: number;
      readonly compressratio: number;
      readonly refreservation: number;
      /** What it was cloned from; empty if it was not, as are the next three. */
      readonly origin: string;
      readonly originGuid: string;
      readonly template: string;
      readonly templateId: string;
    }
  /** There is no such volume. */
  | { readonly outcome: 'none' };

/** Tells of a volume that was just made. Word: the volume. */
export const tellMade = `-- zvold: tell of a volume
${common}
local volume = argv[1]
if not is_volume(volume) then return { outcome = "none" } end
local told = { outcome = "made", id = own(volume, "${property.volumeId}"), guid = tostring(zfs.get_prop(volume, "guid")) }
for _, each in ipairs({ "creation", "used", "referenced", "volsize", "volblocksize", "compressratio", "refreservation" }) do
  told[each] = zfs.get_prop(volume, each)
end
local origin = own(volume, "origin")
told.origin, told.originGuid, told.template, told.templateId = origin, "", "", ""
if origin ~= "" then
  told.originGuid = tostring(zfs.get_prop(origin, "guid"))
  told.template, told.templateId = own(origin, "${property.template}"), own(origin, "${property.templateId}")
end
return told
`;

/** A program with its words, whatever letters they have: every byte is written as its number. */
export function withWords(script: string, words: readonly string[]): string {
  const quoted = words.map((word) => {
    const bytes = [...Buffer.from(word)].map((byte) => `\\${String(byte).padStart(3, '0')}`);
    return `"${bytes.join('')}"`;
  });
  return `local argv = { ${quoted.join(', ')} }\n${script}`;
}
