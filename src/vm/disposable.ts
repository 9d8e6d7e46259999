import { randomBytes } from 'node:crypto';
import { freemem } from 'node:os';
import { parseName, type InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { identify, isAlive, type ProcessIdentity } from '../host/process-identity.ts';
import { isLocked } from '../host/lock.ts';
import type { Spec } from '../template/spec.ts';
import { driverFor } from './drivers.ts';
import { withInstanceLock } from './lifecycle.ts';
import { inspect, instanceLock, instanceNames, readInstance, writeState } from './store.ts';

/** A name for a disposable machine: the template's, and something random. */
export function disposableName(spec: Spec): InstanceName {
  return parseName(`run-${spec.name.slice(0, 28)}-${randomBytes(3).toString('hex')}`);
}

/** This very process, as the owner of disposable machines. */
export async function thisProcess(ctx: Context): Promise<ProcessIdentity> {
  const self = await identify(ctx.run, process.pid);
  if (!self) throw new Error('this process is not found');
  return self;
}

/** Removes disposable machines whose owner is gone (a killed CI job); gives their names. */
export async function reap(ctx: Context): Promise<InstanceName[]> {
  const reaped: InstanceName[] = [];
  for (const name of await instanceNames(ctx)) {
    const state = (await inspect(ctx, name))?.instance?.state;
    if (!state?.owner || (await isAlive(ctx.run, state.owner))) continue;
    if (await isLocked(instanceLock(ctx, name))) continue;
    await withInstanceLock(ctx, name, () => driverFor(ctx, { driver: state.driver }).remove(name));
    reaped.push(name);
  }
  return reaped;
}

/** How many machines of a spec the host's free memory takes at once; at least one. */
export function machinesInMemory(spec: Spec, free: number = freemem()): number {
  return Math.max(1, Math.floor(free / spec.memory));
}

/** Makes a disposable machine one to keep. */
export async function disown(ctx: Context, name: InstanceName): Promise<void> {
  await withInstanceLock(ctx, name, async () => {
    const state = { ...(await readInstance(ctx, name)).state };
    delete state.owner;
    await writeState(ctx, name, state);
  });
}
