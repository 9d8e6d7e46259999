import { readdir, rm, writeFile } from 'node:fs/promises';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { nearest, parseName, type InstanceName } from '../core/names.ts';
import { exists, readIfExists, writeFileAtomically } from '../host/files.ts';
import { isLocked } from '../host/lock.ts';
import type { Context } from '../host/context.ts';
import { formatSpec, parseSpec, type Spec } from '../template/spec.ts';
import type { Inspection, Instance } from './instance.ts';
import { lookAtLima } from './lima-look.ts';
import { findMachine } from './machine-process.ts';
import { parseState, type State } from './state.ts';

/** The name of the lock of one instance. */
export function instanceLock(ctx: Context, name: InstanceName): string {
  return ctx.paths.lock(`instance-${name}`);
}

/** Names of all instances, damaged ones included, sorted. */
export async function instanceNames(ctx: Context): Promise<InstanceName[]> {
  try {
    const entries = await readdir(ctx.paths.instances, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .map((entry) => parseName(entry.name))
      .sort();
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    if (error instanceof Failure) throw error;
    throw new Failure('files', `${ctx.paths.instances} can't be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Whether the one who looks holds the instance's lock itself: then nobody else can be at it. */
export interface Look {
  readonly lockIsOurs?: boolean;
}

/** Looks at one instance; undefined if there is none of that name. Never throws because of what it finds. */
export async function inspect(
  ctx: Context,
  name: InstanceName,
  look: Look = {},
): Promise<Inspection | undefined> {
  const paths = ctx.paths.instance(name);
  if (!exists(paths.folder)) return undefined;
  const isProtected = exists(paths.protect);
  let instance: Instance | undefined;
  let pid: number | undefined;
  try {
    pid = await findMachine(ctx, paths.pid);
    instance = readInstance(ctx, name);
    const { phase, driver } = instance.state;
    let lost: string | undefined;
    if (driver === 'lima' && phase !== 'creating') {
      const seen = await lookAtLima(ctx, instance);
      [pid, lost] = [seen.pid, seen.problem];
    } else if (driver === 'qemu' && !exists(paths.disk)) lost = 'its disk is missing';
    const status = await statusOf(ctx, instance, pid, lost, look);
    const common = { name, instance, protected: isProtected, ...(pid === undefined ? {} : { pid }) };
    return 'reason' in status
      ? { ...common, status: 'broken', reason: status.reason }
      : { ...common, status: status.status };
  } catch (error) {
    return {
      status: 'broken',
      name,
      reason: messageOf(error),
      protected: isProtected,
      ...(instance === undefined ? {} : { instance }),
      ...(pid === undefined ? {} : { pid }),
    };
  }
}

/** All instances that can be read, whatever their status. */
export async function wholeInstances(ctx: Context): Promise<Instance[]> {
  const found = await Promise.all((await instanceNames(ctx)).map((name) => inspect(ctx, name)));
  return found.map((each) => each?.instance).filter((instance) => instance !== undefined);
}

type Verdict =
  { readonly status: 'creating' | 'starting' | 'running' | 'stopped' } | { readonly reason: string };

async function statusOf(
  ctx: Context,
  instance: Instance,
  pid: number | undefined,
  lost: string | undefined,
  look: Look,
): Promise<Verdict> {
  const { phase } = instance.state;
  if (phase === 'creating' || phase === 'starting') {
    if (!look.lockIsOurs && (await isLocked(instanceLock(ctx, instance.name)))) return { status: phase };
    if (phase === 'creating') return { reason: 'its creation was interrupted' };
    return {
      reason: `its start was interrupted${pid === undefined ? '' : ` (the machine runs as process ${pid})`}`,
    };
  }
  if (lost !== undefined) return { reason: lost };
  return { status: pid === undefined ? 'stopped' : 'running' };
}

/** @throws Failure if a file is missing or damaged. */
export function readInstance(ctx: Context, name: InstanceName): Instance {
  const paths = ctx.paths.instance(name);
  const [spec, state] = [readIfExists(paths.spec), readIfExists(paths.state)];
  if (spec === undefined) throw new Failure('files', 'its spec.json is missing');
  if (state === undefined) throw new Failure('files', 'its state.json is missing');
  return { name, spec: parseSpec(spec), state: parseState(state) };
}

/** As `inspect`, for a name that must be there. @throws Failure `not-found` with the nearest name. */
export async function requireInstance(
  ctx: Context,
  name: InstanceName,
  look: Look = {},
): Promise<Inspection> {
  const found = await inspect(ctx, name, look);
  if (found) return found;
  const near = nearest(name, await instanceNames(ctx));
  throw new Failure('not-found', `there is no instance "${name}"`, {
    hint: near
      ? `did you mean "${near}"? zfsdev list shows all`
      : `zfsdev up zfs-test --name ${name} makes one; zfsdev list shows all`,
    data: { name },
  });
}

export async function writeState(ctx: Context, name: InstanceName, state: State): Promise<void> {
  await writeFileAtomically(ctx.paths.instance(name).state, `${JSON.stringify(state, null, 2)}\n`);
}

/** Replaces the spec of an instance whose lock the caller holds. */
export async function writeSpec(ctx: Context, spec: Spec): Promise<void> {
  await writeFileAtomically(ctx.paths.instance(spec.name).spec, formatSpec(spec));
}

/** Keeps an instance from being deleted, or allows it again. */
export async function setProtected(ctx: Context, name: InstanceName, on: boolean): Promise<void> {
  const { protect } = ctx.paths.instance(name);
  if (on) await writeFile(protect, '', { mode: 0o600 });
  else await rm(protect, { force: true });
}
