import { randomBytes } from 'node:crypto';
import { freemem } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { isAlive, residentSize } from '../host/process-identity.ts';
import { isLocked } from '../host/lock.ts';
import type { Spec } from '../template/spec.ts';
import { driverOf } from './drivers.ts';
import type { Inspection } from './instance.ts';
import { withInstanceLock } from './lifecycle.ts';
import { sweepWarm } from './warm-store.ts';
import { inspect, instanceLock, instanceNames, readInstance, writeState } from './store.ts';

/** A name for a disposable machine: the template's, and something random. */
export function disposableName(spec: Spec): InstanceName {
  return parseName(`run-${spec.name.slice(0, 28)}-${randomBytes(3).toString('hex')}`);
}

/**
 * Removes machines whose owner is gone (of a killed CI job, or half-saved ones); gives their names. One that somebody is at, or
 * has protected, stays.
 */
export async function reap(ctx: Context): Promise<InstanceName[]> {
  const reaped: InstanceName[] = [];
  for (const name of await instanceNames(ctx)) {
    const seen = await inspect(ctx, name);
    if (!seen || !(await isOrphaned(ctx, seen)) || (await isLocked(instanceLock(ctx, name)))) continue;
    if (await reapLocked(ctx, seen)) reaped.push(name);
  }
  await sweepWarm(ctx);
  return reaped;
}

/** Whoever came in between may have started it, kept it or made it anew: it goes only if it still is what was seen. */
async function reapLocked(ctx: Context, seen: Inspection): Promise<boolean> {
  const { name } = seen;
  try {
    return await withInstanceLock(ctx, name, async () => {
      const found = await inspect(ctx, name, { lockIsOurs: true });
      if (!found || found.pid !== seen.pid || !(await isOrphaned(ctx, found))) return false;
      if (!isDeepStrictEqual(found.instance?.state, seen.instance?.state)) return false;
      await driverOf(ctx, found.instance).remove(name);
      return true;
    });
  } catch (error) {
    if (error instanceof Failure && error.reason === 'locked') return false;
    throw error;
  }
}

async function isOrphaned(ctx: Context, found: Inspection): Promise<boolean> {
  const owner = found.instance?.state.owner;
  return owner !== undefined && !found.protected && !(await isAlive(ctx.run, owner));
}

/**
 * How many machines of a spec the host's free memory takes at once, beside what those that run may still claim; at least
 * one. A machine claims what it touches, and forks share what they don't change, so this is the worst case.
 */
export async function machinesInMemory(
  ctx: Context,
  spec: Pick<Spec, 'memory'>,
  free: number = freemem(),
): Promise<number> {
  let growth = 0;
  for (const name of await instanceNames(ctx)) {
    const found = await inspect(ctx, name);
    if (found?.pid === undefined || !found.instance) continue;
    growth += Math.max(0, found.instance.spec.memory - (await residentSize(ctx.run, found.pid)));
  }
  return Math.max(1, Math.floor((free - growth) / spec.memory));
}

/** Makes a disposable machine one to keep. */
export async function disown(ctx: Context, name: InstanceName): Promise<void> {
  await withInstanceLock(ctx, name, async () => {
    const state = { ...readInstance(ctx, name).state };
    delete state.owner;
    await writeState(ctx, name, state);
  });
}
