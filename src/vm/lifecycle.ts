import { isDeepStrictEqual } from 'node:util';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { exists } from '../host/files.ts';
import { lock } from '../host/lock.ts';
import type { Spec } from '../template/spec.ts';
import type { Channel, Streams } from '../guest/channel.ts';
import { checkStart } from './admission.ts';
import type { Driver } from './driver.ts';
import { driverFor, driverOf } from './drivers.ts';
import type { Inspection, Instance } from './instance.ts';
import { createBy, type UpOptions } from './creation.ts';
import { inspect, instanceLock, requireInstance, setProtected } from './store.ts';
import { findMachine } from './machine-process.ts';
import { resumeMachine } from './pause.ts';
import { settleBegun } from './snapshot-begun.ts';
import { disksOf } from './snapshot-disks.ts';
import { readBegun } from './snapshot-record.ts';
import { tellOfFilesThatStay } from './storage-files.ts';
import { WarmDamaged } from './warm-check.ts';
import { setAside, warmStateFor } from './warm.ts';

export interface UpResult {
  readonly outcome: 'created' | 'started' | 'already-running';
  readonly instance: Instance;
  /** The health of its pool, where the guest has just told it: a fork does. */
  readonly poolHealth?: string;
}

/** Runs `work` while nobody else can change the instance. */
export async function withInstanceLock<T>(
  ctx: Context,
  name: InstanceName,
  work: () => Promise<T>,
): Promise<T> {
  const held = await lock(instanceLock(ctx, name), `"${name}"`);
  try {
    return await work();
  } finally {
    await held.release();
  }
}

/**
 * Brings an instance up, whatever is there: makes it if there is none, starts it if it is stopped, and says so if it
 * runs. What an interrupted creation left behind holds nothing of the user's and is made anew.
 */
export async function up(ctx: Context, spec: Spec, options: UpOptions): Promise<UpResult> {
  const driver = driverFor(ctx, spec);
  await driver.check(spec);
  return withInstanceLock(ctx, spec.name, async () => {
    const found = await inspect(ctx, spec.name, { lockIsOurs: true });
    if (found && !isLeftover(found)) {
      const instance = wholeInstance(found);
      refuseOtherSpec(instance, spec);
      if (found.status === 'running') return { outcome: 'already-running', instance };
      return { outcome: 'started', instance: await startLocked(ctx, instance, options) };
    }
    if (found) await driver.remove(spec.name);
    return { outcome: 'created', ...(await createAndStart(ctx, driver, spec, options)) };
  });
}

async function createAndStart(
  ctx: Context,
  driver: Driver,
  spec: Spec,
  options: UpOptions,
): Promise<Omit<UpResult, 'outcome'>> {
  // A warm state has the image's kernel in its memory, and no devices but those that all machines have.
  const warm =
    options.cold || spec.kernel || spec.storage ? undefined : await warmStateFor(ctx, driver, spec, options);
  if (warm) {
    try {
      const making = { title: 'Forking the warm machine', diskBound: warm.manifest.diskBound };
      const instance = await createBy(ctx, driver, spec, options, making, (state, undo) =>
        warm.fork(spec, state, warm.manifest, undo, options.deadline()),
      );
      // A fork whose pool is anything else is refused. The first one shows all, as a boot does.
      return { instance, ...(spec.pool && !warm.fresh ? { poolHealth: 'ONLINE' } : {}) };
    } catch (error) {
      if (!(error instanceof WarmDamaged)) throw error;
      await setAside(ctx, warm.manifest, error);
    }
  }
  const instance = await createBy(ctx, driver, spec, options, {}, async (state, undo) =>
    driver.start(await driver.create(spec, state, options), undo, options.deadline()),
  );
  return { instance };
}

/** A set of disks that was cut off while it was taken back would be of two moments. @throws Failure as `settleBegun` */
async function settleSnapshots(ctx: Context, instance: Instance, running: boolean): Promise<void> {
  if (readBegun(ctx, instance.name) === undefined) return;
  // One that an interrupted start left running is not the one that it was begun on.
  if (!running && (await findMachine(ctx, ctx.paths.instance(instance.name).pid)) !== undefined) return;
  const { disks } = await disksOf(ctx, instance);
  await settleBegun(ctx, { instance, running, disks }, driverOf(ctx, instance).snapshots);
}

export interface StartOptions {
  /** Asked for when it is started. */
  readonly deadline: () => Deadline;
  /** Go on although the host's disk could fill up. */
  readonly overcommit: boolean;
}

/** Starts a stopped instance; says so if it runs. @throws Failure `no-space`, `wrong-state` if it is broken. */
export async function start(ctx: Context, name: InstanceName, options: StartOptions): Promise<UpResult> {
  await requireInstance(ctx, name);
  return withInstanceLock(ctx, name, async () => {
    const found = await requireInstance(ctx, name, { lockIsOurs: true });
    const instance = wholeInstance(found);
    if (found.status === 'running') return { outcome: 'already-running', instance };
    return { outcome: 'started', instance: await startLocked(ctx, instance, options) };
  });
}

async function startLocked(
  ctx: Context,
  instance: Instance,
  { deadline, overcommit }: StartOptions,
): Promise<Instance> {
  await settleSnapshots(ctx, instance, false);
  await checkStart(ctx, instance.name, overcommit);
  return withUndo((undo) => driverOf(ctx, instance).start(instance, undo, deadline()));
}

/** Shuts an instance down; gives false if it was not running. */
export async function stop(
  ctx: Context,
  name: InstanceName,
  options: { readonly force: boolean; readonly deadline: Deadline },
): Promise<boolean> {
  await requireInstance(ctx, name);
  return withInstanceLock(ctx, name, async () => {
    const found = await requireInstance(ctx, name, { lockIsOurs: true });
    if (found.pid === undefined) return false;
    await step(
      ctx.emit,
      'stop',
      options.force ? `Cutting the power of ${name}` : `Shutting ${name} down`,
      () => driverOf(ctx, wholeInstance(found, true)).stop(wholeInstance(found, true), options),
    );
    return true;
  });
}

/** Stops and starts an instance. @throws Failure as both of them */
export async function restart(
  ctx: Context,
  name: InstanceName,
  options: StartOptions & { readonly force: boolean },
): Promise<void> {
  await requireInstance(ctx, name);
  // Before it is stopped: a machine that may not start again is better left running.
  if (!options.overcommit) await checkStart(ctx, name, false);
  await stop(ctx, name, { force: options.force, deadline: options.deadline() });
  await start(ctx, name, options);
}

/** Has a machine that stands still go on; gives false if it ran. @throws Failure `wrong-state` if it is stopped. */
export async function resume(ctx: Context, name: InstanceName): Promise<boolean> {
  await requireInstance(ctx, name);
  return withInstanceLock(ctx, name, async () => {
    const found = await requireInstance(ctx, name, { lockIsOurs: true });
    if (found.instance?.state.driver === 'lima') {
      throw new Failure(
        'unsupported',
        `"${name}" is run by Lima, which has none go on; the driver qemu can`,
        {
          hint: `zfsdev restart --force ${name} starts it anew`,
        },
      );
    }
    if (found.status === 'running') {
      await settleSnapshots(ctx, found.instance, true);
      return resumeMachine(ctx, name);
    }
    throw new Failure('wrong-state', `"${name}" does not run`, { hint: `zfsdev start ${name}` });
  });
}

/**
 * Deletes an instance with all its files; works on damaged ones too. One that was adopted is only let go, running or not,
 * and false is given.
 */
export async function remove(
  ctx: Context,
  name: InstanceName,
  options: { readonly force: boolean },
): Promise<boolean> {
  await requireInstance(ctx, name);
  return withInstanceLock(ctx, name, async () => {
    const found = await requireInstance(ctx, name, { lockIsOurs: true });
    const adopted = found.instance?.state.adopted === true;
    if (found.protected) {
      throw new Failure('protected', `"${name}" is protected`, { hint: `zfsdev unprotect ${name}` });
    }
    if (found.status === 'running' && !options.force && !adopted) {
      throw new Failure('wrong-state', `"${name}" is running`, {
        hint: `zfsdev stop ${name} && zfsdev delete ${name}\nor at once: zfsdev delete --force ${name}`,
      });
    }
    // A damaged machine's driver is told by the file that Lima was given.
    const ofLima = found.instance === undefined && exists(ctx.paths.instance(name).lima);
    const driver = ofLima ? driverFor(ctx, { driver: 'lima' }) : driverOf(ctx, found.instance);
    if (adopted) await driver.remove(name);
    else await step(ctx.emit, 'delete', `Deleting ${name}`, () => driver.remove(name));
    if (found.instance) await tellOfFilesThatStay(ctx, found.instance);
    return !adopted;
  });
}

export async function protect(ctx: Context, name: InstanceName, on: boolean): Promise<void> {
  const { instance } = await requireInstance(ctx, name);
  await withInstanceLock(ctx, name, async () => {
    if (instance) await driverOf(ctx, instance).protect?.(instance, on);
    await setProtected(ctx, name, on);
  });
}

/** The way into a running guest. @throws Failure `wrong-state` that says how to get there. */
export async function channelTo(ctx: Context, name: InstanceName, streams?: Streams): Promise<Channel> {
  return (await guestTo(ctx, name, streams)).channel;
}

/** A running machine with the way into it. @throws Failure as `channelTo` */
export async function guestTo(
  ctx: Context,
  name: InstanceName,
  streams?: Streams,
): Promise<{ readonly instance: Instance; readonly channel: Channel }> {
  const found = await requireInstance(ctx, name);
  const instance = wholeInstance(found, true);
  if (found.status === 'running')
    return { instance, channel: driverOf(ctx, instance).channel(instance, streams) };
  throw new Failure(
    'wrong-state',
    `"${name}" is ${found.status === 'broken' ? `broken: ${found.reason}` : found.status}, not running`,
    {
      hint:
        found.status === 'starting' || found.status === 'creating'
          ? 'wait until it is ready'
          : `zfsdev start ${name}`,
      data: { name, status: found.status },
    },
  );
}

/** A creation that never came to its end: nothing in it is the user's. */
function isLeftover(found: Inspection): boolean {
  if (found.status !== 'broken') return false;
  return found.instance === undefined ? false : found.instance.state.phase === 'creating';
}

/**
 * The instance behind an inspection. A start that was interrupted counts as whole: starting again mends it.
 * @throws Failure `wrong-state` for a damaged one.
 */
function wholeInstance(found: Inspection, evenIfBroken = false): Instance {
  const mendable =
    found.instance !== undefined && (evenIfBroken || found.instance.state.phase === 'starting');
  if (found.instance && (found.status !== 'broken' || mendable)) return found.instance;
  throw new Failure(
    'wrong-state',
    `"${found.name}" is broken: ${found.status === 'broken' ? found.reason : found.status}`,
    {
      hint: `zfsdev delete ${found.name} removes what is left of it`,
      data: { name: found.name, status: found.status },
    },
  );
}

/** Flags of `up` make a new machine; on one that is there they would be dropped in silence. */
function refuseOtherSpec(instance: Instance, wanted: Spec): void {
  const keys = ['cpus', 'memory', 'disk', 'template'] as const;
  // What was changed by `zfsdev disk` since is no other spec.
  const { disk = instance.spec.disk, storage = instance.spec.storage ?? [] } = instance.state.made ?? {};
  const made = { ...instance.spec, disk };
  const different: string[] = keys.filter((key) => made[key] !== wanted[key]);
  if (instance.spec.kernel?.digest !== wanted.kernel?.digest) different.push('kernel');
  if (!isDeepStrictEqual(storage, wanted.storage ?? [])) different.push('storage');
  if (different.length === 0) return;
  throw new Failure(
    'already-exists',
    `there is an instance "${instance.name}" already, with another ${different.join(', ')}`,
    {
      hint: `zfsdev start ${instance.name} starts it as it is; --name makes another one beside it`,
      data: { name: instance.name, different },
    },
  );
}
