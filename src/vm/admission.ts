import { dirname } from 'node:path';
import { admit, plan, reserveOf, type Claim } from '../budget/admission.ts';
import { thresholdOf } from '../budget/threshold.ts';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { actualSize, claimFile, exists, makePrivateFolder, writeFileAtomically } from '../host/files.ts';
import { lockWaiting } from '../host/lock.ts';
import { compactedFile } from '../host/paths.ts';
import type { ProcessIdentity } from '../host/process-identity.ts';
import { neededBySnapshots } from '../qemu/qcow2.ts';
import type { Spec } from '../template/spec.ts';
import type { Driver } from './driver.ts';
import { driverName } from './drivers.ts';
import { mainDisk } from './machine-files.ts';
import { inspect, instanceNames, writeState } from './store.ts';
import { newState, type State } from './state.ts';

/** How far every instance that is there can still grow, its snapshots and temporary copies included. */
export async function instanceClaims(ctx: Context): Promise<Claim[]> {
  const claims = await Promise.all((await instanceNames(ctx)).map((name) => claimsOf(ctx, name)));
  return claims.flat();
}

async function claimsOf(ctx: Context, name: InstanceName): Promise<Claim[]> {
  const found = await inspect(ctx, name);
  const instance = found?.instance;
  if (!instance) return [];
  const { state } = instance;
  const { folder, memory } = ctx.paths.instance(name);
  // What Lima has lost is no disk that could grow.
  const disk = await mainDisk(ctx, instance).catch(() => undefined);
  if (disk === undefined) return [];
  const compacted = compactedFile(disk);
  const path = dirname(disk);
  const allocated = actualSize(disk);
  // A damaged disk can't be written to, and so can't grow.
  const snapshots = await neededBySnapshots(disk).catch(() => 0);
  const claims: Claim[] = [
    { what: `the disk of ${name}`, path, bound: state.diskBound + snapshots, allocated },
  ];
  if (exists(compacted))
    claims.push({ ...copyClaim(path, name, allocated), allocated: actualSize(compacted) });
  if (state.seed) claims.push({ ...memoryClaim(folder, instance.spec), allocated: actualSize(memory) });
  return claims;
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

async function checkClaims(
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
