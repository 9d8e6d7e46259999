import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { parseName } from '../core/names.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
import { resolveSpec, type ResolveFlags } from '../template/resolve.ts';
import { isCloudImage, type Spec } from '../template/spec.ts';
import { reap } from '../vm/disposable.ts';
import { plannedUp } from '../vm/dry-run.ts';
import type { Instance } from '../vm/instance.ts';
import { addKernel, withKernel } from '../vm/kernel.ts';
import { channelTo, start, up as bringUp, type UpResult } from '../vm/lifecycle.ts';
import { inspect } from '../vm/store.ts';
import { duration } from '../ui/progress.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface UpCommandOptions extends GlobalOptions {
  readonly name?: string;
  readonly cpus?: number;
  readonly memory?: string;
  readonly disk?: string;
  readonly poolSize?: string;
  readonly suite?: string;
  readonly driver?: string;
  readonly accel?: string;
  readonly timeout?: string;
  readonly overcommit?: boolean;
  readonly cold?: boolean;
  readonly kernel?: string;
  readonly installDeps?: boolean;
  readonly yes?: boolean;
  readonly mirror?: string;
}

/** The options of `up` and `render` that change the template. */
export function resolveFlags(options: UpCommandOptions): ResolveFlags {
  const { name, cpus, memory, disk, poolSize, suite, driver, accel } = options;
  const flags = { name, cpus, memory, disk, poolSize, suite, driver, accelerator: accel };
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined));
}

/** `zfsdev up`: makes and starts a machine, or starts the one that is there. */
export async function up(
  session: Session,
  target: string | undefined,
  options: UpCommandOptions,
): Promise<void> {
  const began = performance.now();
  const { ctx } = session;
  const timeout = parseDuration(options.timeout ?? '10m');
  const how = {
    deadline: () => deadlineIn(timeout),
    overcommit: options.overcommit === true,
  };
  const flags = resolveFlags(options);
  const present =
    target !== undefined && Object.keys(flags).length === 0 && options.kernel === undefined
      ? await presentInstance(session, target)
      : undefined;
  const spec = present?.spec ?? (await resolveSpec(target ?? 'zfs-test', flags));
  if (options.installDeps) {
    const { installDependencies } = await import('../doctor/fix.ts');
    const needed = [
      ...(isCloudImage(spec.image) && spec.image.firmware === 'uefi' ? ['uefi'] : []),
      ...(options.kernel === undefined ? [] : ['zstd']),
    ];
    await installDependencies(session, { yes: options.yes === true, needed });
  }
  if (ctx.dryRun) {
    if (options.kernel !== undefined)
      ctx.emit({ type: 'would', text: `take in the kernel ${options.kernel}, and boot it` });
    for (const text of await plannedUp(ctx, spec, present !== undefined)) ctx.emit({ type: 'would', text });
    return;
  }
  await reap(ctx);
  const result = present
    ? await start(ctx, present.name, how)
    : await bringUp(ctx, await kernelIn(ctx, spec, options), {
        ...how,
        cold: options.cold === true,
        ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
      });
  await checkRelease(session, result);
  const poolStatus = await askPool(session, result);
  const milliseconds = performance.now() - began;
  await session.answer(document(result, poolStatus, milliseconds), () =>
    text(session, result, poolStatus, milliseconds),
  );
}

/** The instance that `target` names, if there is one; a damaged one is left to the rooms below to judge. */
async function presentInstance(session: Session, target: string): Promise<Instance | undefined> {
  let name;
  try {
    name = parseName(target);
  } catch (error) {
    // Not a name: a file's path, or a mistake that the template's search reports better.
    if (error instanceof Failure) return undefined;
    throw error;
  }
  const found = await inspect(session.ctx, name);
  return found?.instance?.state.phase === 'creating' ? undefined : found?.instance;
}

/** The spec with the kernel that was asked for, which is taken in. */
async function kernelIn(ctx: Context, spec: Spec, { kernel, overcommit }: UpCommandOptions): Promise<Spec> {
  return kernel === undefined
    ? spec
    : withKernel(ctx, spec, await addKernel(ctx, kernel, overcommit === true));
}

/** A machine with a kernel of its own must run that one. @throws Failure `guest` */
async function checkRelease({ ctx }: Session, { instance: { name, spec } }: UpResult): Promise<void> {
  if (!spec.kernel) return;
  const channel = await channelTo(ctx, name);
  const { stdout } = await channel.exec(['uname', '-r'], { deadline: 120_000, signal: ctx.signal });
  if (stdout === spec.kernel.release) return;
  throw new Failure('guest', `"${name}" runs the kernel ${stdout}, and not ${spec.kernel.release}`, {
    hint: `zfsdev logs ${name} shows its console; zfsdev delete --force ${name} removes it`,
  });
}

/**
 * The guest's own words on its pool: the proof that all of it works. A fork has told its pool's health on the way, and a
 * `zpool` of its own would be a third of the time it takes.
 */
async function askPool({ ctx }: Session, { instance, poolHealth }: UpResult): Promise<string | undefined> {
  const { name, spec } = instance;
  if (!spec.pool) return undefined;
  if (poolHealth !== undefined) return `  pool: ${spec.pool.name}\n state: ${poolHealth}`;
  const channel = await channelTo(ctx, name);
  const { exitCode, stdout, stderr } = await channel.exec(['zpool', 'status', spec.pool.name], {
    deadline: 120_000,
    signal: ctx.signal,
  });
  if (exitCode === 0 && /state: ONLINE/.test(stdout)) return stdout;
  throw new Failure('guest', `the pool ${spec.pool.name} of "${name}" is not ONLINE`, {
    detail: (stdout + stderr).trim(),
    hint: `zfsdev shell ${name} lets you look; zfsdev delete --force ${name} removes it`,
  });
}

function document(
  { outcome, instance }: UpResult,
  poolStatus: string | undefined,
  milliseconds: number,
): object {
  const { name, spec, state } = instance;
  return {
    name,
    outcome,
    status: 'running',
    driver: state.driver,
    accelerator: state.accelerator,
    sshPort: state.sshPort,
    ...(spec.kernel ? { kernel: spec.kernel } : {}),
    ...(spec.pool && poolStatus !== undefined
      ? { pool: { name: spec.pool.name, health: 'ONLINE', status: poolStatus } }
      : {}),
    seconds: Math.round(milliseconds) / 1000,
  };
}

function text(
  session: Session,
  { outcome, instance }: UpResult,
  poolStatus: string | undefined,
  milliseconds: number,
): string {
  const { name } = instance;
  const words = {
    created: 'is ready',
    started: 'is started and ready',
    'already-running': 'is running already',
  }[outcome];
  const took = outcome === 'already-running' ? '' : session.paint('faint', ` (${duration(milliseconds)})`);
  return [
    ...(poolStatus === undefined ? [] : [poolStatus.trimEnd(), '']),
    `${session.paint('good', name)} ${words}${took}`,
    `  zfsdev shell ${name}              a shell in it`,
    `  zfsdev exec ${name} -- COMMAND    one command`,
    `  zfsdev stop ${name}               shut it down; up starts it again`,
    '',
  ].join('\n');
}
