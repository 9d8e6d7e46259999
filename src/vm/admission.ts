import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { admit, plan, reserveOf, type Claim } from '../budget/admission.ts';
import { thresholdOf } from '../budget/threshold.ts';
import { MiB } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import {
  actualSize,
  claimFile,
  exists,
  makePrivateFolder,
  readIfExists,
  writeFileAtomically,
} from '../host/files.ts';
import { isLocked, lockWaiting } from '../host/lock.ts';
import { compactedFile } from '../host/paths.ts';
import { leadsTo } from '../host/system-folders.ts';
import type { ProcessIdentity } from '../host/process-identity.ts';
import { neededBySnapshots, notYetInSnapshots } from '../qemu/qcow2-snapshots.ts';
import type { Spec } from '../template/spec.ts';
import { buildClaims } from './build-claims.ts';
import type { Driver } from './driver.ts';
import { driverName } from './drivers.ts';
import { mainDisk } from './machine-files.ts';
import { checkStorage } from './storage-check.ts';
import { storageClaims } from './storage-claims.ts';
import { inspect, instanceLock, instanceNames, writeState } from './store.ts';
import { newState, type State } from './state.ts';

/** How far every instance that is there, and every kernel that is being built, can still grow, its snapshots and temporary copies included. */
export async function instanceClaims(ctx: Context): Promise<Claim[]> {
  const claims = await Promise.all((await instanceNames(ctx)).map((name) => claimsOf(ctx, name)));
  return [...claims.flat(), ...(await buildClaims(ctx))];
}

async function claimsOf(ctx: Context, name: InstanceName): Promise<Claim[]> {
  const found = await inspect(ctx, name);
  const instance = found?.instance;
  if (!instance) return [];
  const { state } = instance;
  const { folder, memory, snapshotClaim } = ctx.paths.instance(name);
  // What Lima has lost is no disk that could grow.
  const named = await mainDisk(ctx, instance).catch(() => undefined);
  if (named === undefined) return [];
  const disk = leadsTo(named);
  const compacted = compactedFile(disk);
  const path = dirname(disk);
  const allocated = actualSize(disk);
  // A damaged disk can't be written to, and so can't grow.
  const snapshots = await neededBySnapshots(disk).catch(() => 0);
  const claims: Claim[] = [
    { what: `the disk of ${name}`, path, bound: state.diskBound + snapshots, allocated },
    ...(await storageClaims(ctx, { name, storage: instance.spec.storage ?? [] })),
  ];
  if (exists(compacted))
    claims.push({ ...copyClaim(path, name, allocated), allocated: actualSize(compacted) });
  if (state.seed) claims.push({ ...memoryClaim(folder, instance.spec), allocated: actualSize(memory) });
  const taken = Number(readIfExists(snapshotClaim) ?? 0);
  // One that was left behind by somebody who was killed counts for nothing.
  if (taken > 0 && (await isLocked(instanceLock(ctx, name)))) claims.push(snapshotClaimOf(name, path, taken));
  return claims;
}

/** A snapshot makes all that the disk holds its own, so that the guest can write it once more; and memory comes on top. */
function snapshotClaimOf(name: string, path: string, bound: number): Claim {
  return { what: `the new snapshot of ${name}`, path, bound, allocated: 0 };
}

/** The memory of a machine that is there to be saved lies in a file, which holds what the guest ever touched. */
function memoryClaim(path: string, { name, memory }: Pick<Spec, 'name' | 'memory'>): Claim {
  return { what: `the memory of ${name}`, path, bound: memory, allocated: 0 };
}

/** A disk that is written anew can't take more than the old one, whose file stays until the new one is whole. */
function copyClaim(path: string, name: string, allocated: number): Claim {
  return { what: `the compacted disk of ${name} (temporary)`, path, bound: allocated, allocated: 0 };
}

/** What is asked for besides a spec. */
export interface Reservation {
  readonly overcommit: boolean;
  readonly owner?: ProcessIdentity | undefined;
  readonly seed?: boolean;
  readonly diskBound?: number;
}

/**
 * Admits a new instance and makes its folder with spec and state, from which moment its worst case counts. Both happen
 * under one lock, so that two newcomers can't take the same gigabyte.
 * @throws Failure `no-space`
 */
export async function reserveInstance(
  ctx: Context,
  driver: Driver,
  spec: Spec,
  options: Reservation,
): Promise<State> {
  const { folder, spec: specFile } = ctx.paths.instance(spec.name);
  const held = await lockWaiting(ctx.paths.lock('budget'), ctx.signal);
  try {
    const own = [
      ...(options.diskBound === undefined
        ? await driver.claims(spec)
        : [{ what: `the disk of ${spec.name}`, path: folder, bound: options.diskBound, allocated: 0 }]),
      ...(options.seed ? [memoryClaim(folder, spec)] : []),
    ];
    await checkBudget(ctx, spec, own, options.overcommit);
    // Under this lock, too: of two newcomers that want one file, the second sees the first.
    await checkStorage(ctx, spec);
    await makePrivateFolder(folder);
    const state: State = {
      ...newState(driverName(ctx, spec)),
      diskBound: own[0]?.bound ?? spec.disk,
      ...(options.owner === undefined ? {} : { owner: options.owner }),
      ...(options.seed ? { seed: true } : {}),
    };
    await writeState(ctx, spec.name, state);
    await writeFileAtomically(specFile, `${JSON.stringify(spec, null, 2)}\n`);
    return state;
  } finally {
    await held.release();
  }
}

/**
 * Admits the copy of a disk that is about to be written anew, and makes its empty file, from which moment it counts.
 * @throws Failure `no-space`, `files`
 */
export async function reserveCopy(
  ctx: Context,
  name: InstanceName,
  disk: string,
  overcommit: boolean,
): Promise<void> {
  const path = dirname(disk);
  const held = await lockWaiting(ctx.paths.lock('budget'), ctx.signal);
  try {
    const own = copyClaim(path, name, actualSize(disk));
    await checkClaims(ctx, [own], { what: own.what, path, free: 0 }, overcommit);
    await claimFile(compactedFile(disk));
  } finally {
    await held.release();
  }
}

/** What memory takes on a disk beyond its own size: processors, devices, and the format's own words. */
const memoryOverhead = 64 * MiB;

/**
 * Admits a snapshot that is about to be taken, and writes down what it may take, which counts as long as the instance's
 * lock is held and until `release`.
 * @param memory bytes of the guest's memory that are saved with it; 0 for none
 * @throws Failure `no-space`, `files`
 */
export async function reserveSnapshot(
  ctx: Context,
  name: InstanceName,
  { disks, memory, overcommit }: { disks: readonly string[]; memory: number; overcommit: boolean },
): Promise<{ release: () => Promise<void> }> {
  const { snapshotClaim, folder } = ctx.paths.instance(name);
  const held = await lockWaiting(ctx.paths.lock('budget'), ctx.signal);
  try {
    // What was left behind is not to be counted beside the new one.
    await rm(snapshotClaim, { force: true });
    const sizes = await Promise.all(disks.map(snapshotGrowth));
    const own = disks.map((disk, i) => snapshotClaimOf(name, dirname(disk), sizes[i] ?? 0));
    if (memory > 0) {
      const path = dirname(disks[0] ?? folder);
      own.push({ what: `the memory of ${name}`, path, bound: memory + memoryOverhead, allocated: 0 });
    }
    const [first] = own;
    const what = `a snapshot of "${name}"`;
    await checkClaims(ctx, own, { what, path: first?.path ?? folder, free: 0 }, overcommit);
    const total = own.reduce((sum, { bound }) => sum + bound, 0);
    await writeFileAtomically(snapshotClaim, `${total}\n`);
  } finally {
    await held.release();
  }
  return { release: () => rm(snapshotClaim, { force: true }) };
}

/** Of a running machine the tables may not be readable at this moment: then all that the file takes. */
async function snapshotGrowth(disk: string): Promise<number> {
  return notYetInSnapshots(disk).catch(() => actualSize(disk));
}

/**
 * Admits a file that is about to be written beside everything else.
 * @throws Failure `no-space`
 */
export async function checkExport(
  ctx: Context,
  { what, path, bound }: { what: string; path: string; bound: number },
  overcommit: boolean,
): Promise<void> {
  await checkClaims(ctx, [{ what, path, bound, allocated: 0 }], { what, path, free: 0 }, overcommit);
}

/**
 * Whether a machine that is there may be started: its worst case was admitted when it was made, but the host's disk may
 * have filled up since. @throws Failure `no-space`, unless `overcommit`
 */
export async function checkStart(ctx: Context, name: InstanceName, overcommit: boolean): Promise<void> {
  const path = ctx.paths.instance(name).folder;
  await checkClaims(ctx, [], { what: `running "${name}"`, path, free: 0 }, overcommit);
}

/** Whether something beside the instances fits, too. @throws Failure `no-space`, unless `overcommit` */
export async function checkSpace(
  ctx: Context,
  own: readonly Claim[],
  what: string,
  overcommit: boolean,
): Promise<void> {
  await checkClaims(ctx, own, { what, path: ctx.paths.images, free: 0 }, overcommit);
}

/** @throws Failure `no-space`, unless `overcommit`: then a warning says what is at risk. */
export async function checkBudget(
  ctx: Context,
  spec: Spec,
  own: readonly Claim[],
  overcommit: boolean,
): Promise<void> {
  const path = ctx.paths.instance(spec.name).folder;
  await checkClaims(ctx, own, { what: `"${spec.name}"`, path, free: thresholdOf(spec) }, overcommit);
}

/** As `checkBudget`, for anything else that can grow. */
export async function checkClaims(
  ctx: Context,
  own: readonly Claim[],
  needed: Parameters<typeof admit>[1],
  overcommit: boolean,
): Promise<void> {
  const plans = await plan([...(await instanceClaims(ctx)), ...own], reserveOf(ctx.env));
  try {
    admit(plans, needed);
  } catch (error) {
    if (!overcommit || !(error instanceof Failure) || error.reason !== 'no-space') throw error;
    ctx.emit({
      type: 'notice',
      level: 'warning',
      text: `${error.message}; going on (--overcommit): when the host's disk is full, running guests stand still`,
    });
  }
}
