import { Failure, messageOf, type FailureReason } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { parseName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { lockWaiting } from '../host/lock.ts';
import { ownIdentity } from '../host/process-identity.ts';
import type { Spec } from '../template/spec.ts';
import type { Driver } from './driver.ts';
import { createBy, type UpOptions } from './creation.ts';
import { instanceLock } from './store.ts';
import { warmKeyOf, type WarmKey } from './warm-key.ts';
import type { WarmDamaged } from './warm-check.ts';
import {
  condemnForked,
  condemnWarm,
  hostCpu,
  inspectWarm,
  inTheWay,
  warmLock,
  type WarmManifest,
} from './warm-store.ts';

/** A warm state, and the driver's way to fork from it. */
export interface Forkable {
  readonly manifest: WarmManifest;
  /** It was made now, by booting. */
  readonly fresh: boolean;
  readonly fork: NonNullable<Driver['fork']>;
}

/**
 * The warm state that fits a spec: the one that is there, or one made now by booting and saving a machine. Undefined
 * where the driver can't fork, where saving failed, or where instances stand on a damaged one: then a warning was given, and the
 * caller boots.
 */
export async function warmStateFor(
  ctx: Context,
  driver: Driver,
  spec: Spec,
  options: UpOptions,
): Promise<Forkable | undefined> {
  const { fork, saveWarm } = driver;
  if (!fork || !saveWarm) return undefined;
  const key = await warmKeyOf(ctx, spec);
  const present = await inspectWarm(ctx, key.key);
  if (present?.state === 'whole' && unfit(present.manifest, key.key) === undefined)
    return { manifest: present.manifest, fresh: false, fork };
  // Two first ups at once save one state: the second waits for the first one's. And none sets aside what the other makes.
  const held = await lockWaiting(warmLock(ctx, key.key), ctx.signal);
  try {
    const made = (await wholeWarm(ctx, key)) ?? (await makeWarm(ctx, driver, saveWarm, spec, key, options));
    return made && made !== 'in the way' ? { manifest: made, fresh: true, fork } : undefined;
  } catch (error) {
    if (!(error instanceof Failure) || !survivable.includes(error.reason)) throw error;
    const text = `no warm state could be saved (${messageOf(error)}); booting without one`;
    ctx.emit({ type: 'notice', level: 'warning', text });
    return undefined;
  } finally {
    await held.release();
  }
}

/** Failures of booting and saving a warm machine after which the instance itself is made without one. */
const survivable: readonly FailureReason[] = ['process', 'files', 'no-space', 'guest'];

/**
 * The warm state of a key, under its lock. One that can't be used goes; or its disk stays, where instances stand on it, in the way
 * of a new one.
 */
async function wholeWarm(ctx: Context, { key }: WarmKey): Promise<WarmManifest | 'in the way' | undefined> {
  const found = await inspectWarm(ctx, key);
  if (found) {
    const reason = found.state === 'whole' ? unfit(found.manifest, key) : found.reason;
    if (found.state === 'whole' && reason === undefined) return found.manifest;
    const users = await condemnWarm(ctx, key);
    const what = `the warm state ${key.slice(0, 12)} can't be used (${reason})`;
    const then =
      users.length === 0
        ? 'a new one is made'
        : `${inTheWay(key, users)}, so that none is made: booting instead, until zfsdev delete ${users.join(' ')}`;
    ctx.emit({ type: 'notice', level: 'warning', text: `${what}; ${then}` });
    if (users.length > 0) return 'in the way';
  }
  return undefined;
}

/** Why a state that is whole must not be forked from here, though it lies under the right key. */
function unfit(manifest: WarmManifest, key: string): string | undefined {
  if (manifest.key !== key) return 'it was saved under another key';
  if (manifest.cpu !== hostCpu()) return `it was saved on another processor: ${manifest.cpu}`;
  return undefined;
}

/** Sets a warm state aside that a fork has found damaged, and tells. @throws Failure `interrupted` */
export async function setAside(ctx: Context, warm: WarmManifest, { message }: WarmDamaged): Promise<void> {
  const users = await condemnForked(ctx, warm);
  const next = users?.length ? `up after zfsdev delete ${users.join(' ')}` : 'up';
  const then = users ? `the next ${next} saves a new one` : 'another was saved since';
  const text = `the warm state ${warm.key.slice(0, 12)} is damaged (${message}); booting instead, ${then}`;
  ctx.emit({ type: 'notice', level: 'warning', text });
}

/** Boots a machine of this spec under a name of its own, and saves it. */
async function makeWarm(
  ctx: Context,
  driver: Driver,
  saveWarm: NonNullable<Driver['saveWarm']>,
  spec: Spec,
  key: WarmKey,
  options: UpOptions,
): Promise<WarmManifest | 'in the way' | undefined> {
  const name = parseName(`warm-${key.key.slice(0, 12)}`);
  // Whoever sweeps away what a killed process left of an earlier attempt holds it for a moment, until its QEMU is gone.
  const held = await lockWaiting(instanceLock(ctx, name), ctx.signal);
  try {
    // What a killed process left of an earlier attempt.
    await driver.remove(name);
    const seedSpec = { ...spec, name };
    const owner = await ownIdentity(ctx.run);
    const instance = await createBy(
      ctx,
      driver,
      seedSpec,
      { ...options, owner },
      { seed: true },
      async (state, undo) =>
        driver.start(await driver.create(seedSpec, state, options), undo, options.deadline()),
    );
    await step(ctx.emit, 'warm', 'Saving it as a warm machine', () => saveWarm(instance, key));
  } finally {
    await driver.remove(name);
    await held.release();
  }
  return wholeWarm(ctx, key);
}
