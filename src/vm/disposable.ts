import { randomBytes } from 'node:crypto';
import { freemem } from 'node:os';
import { parseName, type InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { isAlive, residentSize } from '../host/process-identity.ts';
import { isLocked } from '../host/lock.ts';
import type { Spec } from '../template/spec.ts';
import { driverOf } from './drivers.ts';
import { withInstanceLock } from './lifecycle.ts';
import { sweepWarm } from './warm-store.ts';
import { inspect, instanceLock, instanceNames, readInstance, writeState } from './store.ts';

/** A name for a disposable machine: the template's, and something random. */
export function disposableName(spec: Spec): InstanceName {
  return parseName(`run-${spec.name.slice(0, 28)}-${randomBytes(3).toString('hex')}`);
}

/** Removes machines whose owner is gone (of a killed CI job, or half-saved ones); gives their names. */
export async function reap(ctx: Context): Promise<InstanceName[]> {
  const reaped: InstanceName[] = [];
  for (const name of await instanceNames(ctx)) {
    const state = (await inspect(ctx, name))?.instance?.state;
    if (!state?.owner || (await isAlive(ctx.run, state.owner))) continue;
    if (await isLocked(instanceLock(ctx, name))) continue;
    await withInstanceLock(ctx, name, () => driverOf(ctx, { state }).remove(name));
    reaped.push(name);
  }
  await sweepWarm(ctx);
  return reaped;
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
