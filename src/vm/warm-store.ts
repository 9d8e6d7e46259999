import { createHash } from 'node:crypto';
import { readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';
import * as v from 'valibot';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { fileRecordSchema } from './file-record.ts';
import { actualSize, flush, readIfExists, writeFileAtomically } from '../host/files.ts';
import { isLocked, lockWaiting } from '../host/lock.ts';
import { machinesOn, withUsers } from './storage-users.ts';
import { wholeInstances } from './store.ts';
import type { Instance } from './instance.ts';

/** Raised whenever an older zfsdev could not fork from a newer warm state, or the other way round. */
export const warmFormat = 2;

const manifestSchema = v.object({
  format: v.literal(warmFormat),
  key: v.string(),
  template: v.string(),
  /** ISO 8601. */
  created: v.string(),
  imageDigest: v.string(),
  accelerator: v.picklist(['kvm', 'hvf', 'tcg']),
  qemu: v.string(),
  cpu: v.string(),
  memoryBytes: v.number(),
  diskBytes: v.number(),
  diskBound: v.number(),
  /** Address of the network card in the saved memory; every fork changes it. */
  mac: v.string(),
  /** Secret of the saved machine's agent; every fork gets one of its own. */
  agentKey: v.string(),
  /** The guest's memory as it stands in a file that forks map; everything but zeros is recorded. */
  memory: fileRecordSchema,
  devices: fileRecordSchema,
  disk: fileRecordSchema,
});

export type WarmManifest = v.InferOutput<typeof manifestSchema>;

/** What lies under one key. */
export type WarmState =
  | {
      readonly state: 'whole';
      readonly key: string;
      readonly manifest: WarmManifest;
      readonly actual: number;
    }
  | { readonly state: 'broken'; readonly key: string; readonly reason: string; readonly actual: number };

const keyPattern = /^[0-9a-f]{64}$/;

/** The host's processor as its kernel names it: memory saved under one need not run under another. */
export function hostCpu(): string {
  return cpus()[0]?.model.trim() ?? 'unknown';
}

/** Looks at one warm state without reading its memory; undefined if there is none. */
export async function inspectWarm(ctx: Context, key: string): Promise<WarmState | undefined> {
  const paths = ctx.paths.warmState(key);
  const text = readIfExists(paths.manifest);
  const sizes = [paths.memory, paths.devices, paths.disk].map(actualSize);
  const actual = sizes.reduce((sum, size) => sum + size, 0);
  if (text === undefined)
    return actual > 0 ? { state: 'broken', key, reason: 'manifest.json is missing', actual } : undefined;
  try {
    const input: unknown = JSON.parse(text);
    if (v.is(v.object({ format: v.number() }), input) && input.format !== warmFormat)
      return { state: 'broken', key, reason: `another version of zfsdev saved it`, actual };
    const manifest = v.parse(manifestSchema, input);
    for (const [path, { size }] of [
      [paths.memory, manifest.memory],
      [paths.devices, manifest.devices],
      [paths.disk, manifest.disk],
    ] as const) {
      const length = (await stat(path)).size;
      if (length !== size)
        return { state: 'broken', key, reason: `${path} has ${length} bytes instead of ${size}`, actual };
    }
    return { state: 'whole', key, manifest, actual };
  } catch (error) {
    return { state: 'broken', key, reason: messageOf(error), actual };
  }
}

/** All warm states, whole and broken, in the order of their keys. */
export async function listWarm(ctx: Context): Promise<WarmState[]> {
  const names = await namesIn(ctx.paths.warm);
  const found = await Promise.all(
    names
      .filter((name) => keyPattern.test(name))
      .sort()
      .map((key) => inspectWarm(ctx, key)),
  );
  return found.filter((entry) => entry !== undefined);
}

/** Where this process makes the warm state of a key, before it is renamed. */
export function buildingFolder(ctx: Context, key: string): string {
  return join(ctx.paths.warm, `.building-${key.slice(0, 12)}-${process.pid}`);
}

/** The lock of whoever makes the warm state of a key, or sets it aside. */
export function warmLock(ctx: Context, key: string): string {
  return ctx.paths.lock(`warm-${key.slice(0, 12)}`);
}

/**
 * Removes what killed processes left half-made or half-removed. Whoever makes a state holds the lock of its key; `held` is
 * the key whose lock the caller holds itself.
 */
export async function sweepWarm(ctx: Context, held?: string): Promise<void> {
  for (const name of await namesIn(ctx.paths.warm)) {
    const [, what, key] = /^\.(building|leaving)-([0-9a-f]{12})-/.exec(name) ?? [];
    if (what === undefined || key === undefined) continue;
    const busy = what === 'building' && !held?.startsWith(key) && (await isLocked(warmLock(ctx, key)));
    if (!busy) await rm(join(ctx.paths.warm, name), { recursive: true, force: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw new Failure('files', `${folder} can't be listed`, { cause: error });
  }
}

/** Which instances stand on which warm state: key to names. Damaged ones count, by their disks. */
export async function warmUsers(ctx: Context): Promise<Map<string, string[]>> {
  return withUsers(groupWarmUsers(await wholeInstances(ctx)), await machinesOn(ctx, ctx.paths.warm));
}

/** As `warmUsers`, of what is known already. */
export function groupWarmUsers(instances: readonly Instance[]): Map<string, string[]> {
  const users = new Map<string, string[]>();
  for (const { name, state } of instances)
    if (state.warm !== undefined) users.set(state.warm, [...(users.get(state.warm) ?? []), name]);
  return users;
}

/** Removes a warm state; it disappears under its name at once. @throws Failure `wrong-state` while forks stand on it. */
export async function removeWarm(ctx: Context, key: string): Promise<void> {
  const users = (await warmUsers(ctx)).get(key) ?? [];
  if (users.length > 0) {
    throw new Failure(
      'wrong-state',
      `${users.join(', ')} ${users.length === 1 ? 'stands' : 'stand'} on the warm state ${key.slice(0, 12)}`,
      {
        hint: `zfsdev delete --force ${users.join(' ')}`,
        data: { key, users },
      },
    );
  }
  const leaving = join(ctx.paths.warm, `.leaving-${key.slice(0, 12)}-${process.pid}`);
  await rename(ctx.paths.warmState(key).folder, leaving);
  await rm(leaving, { recursive: true, force: true });
}

/**
 * Gives a warm state its name once it is whole, in the place of what is left of a damaged one.
 * @param building the folder with its files, beside the others. To be called under `warmLock`.
 * @throws Failure `files` while instances stand on the damaged one, whose disks would be of no use on another
 */
export async function publishWarm(ctx: Context, key: string, building: string): Promise<void> {
  const { folder, disk } = ctx.paths.warmState(key);
  const users = (await warmUsers(ctx)).get(key) ?? [];
  if (users.length > 0) throw new Failure('files', inTheWay(key, users), { data: { key, users } });
  // Forks stand on it as long as they live.
  await flush(join(building, basename(disk)));
  await rm(folder, { recursive: true, force: true });
  await rename(building, folder);
  await flush(ctx.paths.warm);
}

/** Why no new warm state is saved in the place of one that can't be used. */
export function inTheWay(key: string, users: readonly string[]): string {
  return `${users.join(', ')} ${users.length === 1 ? 'stands' : 'stand'} on what is left of the warm state ${key.slice(0, 12)}`;
}

/**
 * Sets a damaged warm state aside: no fork is made from it again. Its memory goes at once; its disk stays as long as
 * instances stand on it, and `prune` takes it afterwards. To be called under `warmLock`.
 * @returns the instances that stand on it: none is saved in its place before they are gone
 */
export async function condemnWarm(ctx: Context, key: string): Promise<readonly string[]> {
  const paths = ctx.paths.warmState(key);
  await rm(paths.manifest, { force: true });
  await Promise.all([paths.memory, paths.devices].map((path) => rm(path, { force: true })));
  const users = (await warmUsers(ctx)).get(key) ?? [];
  if (users.length === 0) await rm(paths.folder, { recursive: true, force: true });
  return users;
}

/**
 * As `condemnWarm`, of one that a fork has found damaged; waits for whoever is making or judging it. What was saved in its
 * place since stays.
 * @returns the instances that stand on the damaged one; undefined if there is another in its place
 * @throws Failure `interrupted`
 */
export async function condemnForked(
  ctx: Context,
  { key, created }: Pick<WarmManifest, 'key' | 'created'>,
): Promise<readonly string[] | undefined> {
  const held = await lockWaiting(warmLock(ctx, key), ctx.signal);
  try {
    const found = await inspectWarm(ctx, key);
    if (found?.state === 'whole' && found.manifest.created !== created) return undefined;
    return await condemnWarm(ctx, key);
  } finally {
    await held.release();
  }
}

export async function writeManifest(folder: string, manifest: WarmManifest): Promise<void> {
  await writeFileAtomically(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

/** sha256 of a small file, in hex. */
export async function digestOf(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}
