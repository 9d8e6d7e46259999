import { admit, plan, type Claim } from '../budget/admission.ts';
import { thresholdOf } from '../budget/threshold.ts';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { actualSize, makePrivateFolder, writeFileAtomically } from '../host/files.ts';
import { lockWaiting } from '../host/lock.ts';
import type { ProcessIdentity } from '../host/process-identity.ts';
import type { Spec } from '../template/spec.ts';
import type { Driver } from './driver.ts';
import { driverName } from './drivers.ts';
import { inspect, instanceNames, writeState } from './store.ts';
import { newState, type State } from './state.ts';

/** How far every instance that is there can still grow. */
export async function instanceClaims(ctx: Context): Promise<Claim[]> {
  const claims: Claim[] = [];
  for (const name of await instanceNames(ctx)) {
    const found = await inspect(ctx, name);
    const state = found?.instance?.state;
    if (!state) continue;
    const { folder, disk, memory } = ctx.paths.instance(name);
    claims.push({
      what: `the disk of ${name}`,
      path: folder,
      bound: state.diskBound,
      allocated: await actualSize(disk),
    });
    const spec = state.seed && found?.instance?.spec;
    if (spec) claims.push({ ...memoryClaim(folder, spec), allocated: await actualSize(memory) });
  }
  return claims;
}

/** The memory of a machine that is there to be saved lies in a file, which holds what the guest ever touched. */
function memoryClaim(path: string, { name, memory }: Pick<Spec, 'name' | 'memory'>): Claim {
  return { what: `the memory of ${name}`, path, bound: memory, allocated: 0 };
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

/** @throws Failure `no-space`, unless `overcommit`: then a warning says what is at risk. */
export async function checkBudget(
  ctx: Context,
  spec: Spec,
  own: readonly Claim[],
  overcommit: boolean,
): Promise<void> {
  const plans = await plan([...(await instanceClaims(ctx)), ...own]);
  try {
    admit(plans, {
      what: `"${spec.name}"`,
      path: ctx.paths.instance(spec.name).folder,
      free: thresholdOf(spec),
    });
  } catch (error) {
    if (!overcommit || !(error instanceof Failure) || error.reason !== 'no-space') throw error;
    ctx.emit({
      type: 'notice',
      level: 'warning',
      text: `${error.message}; going on (--overcommit): when the host's disk is full, running guests stand still`,
    });
  }
}
