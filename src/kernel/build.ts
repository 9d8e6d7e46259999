import { rm, writeFile } from 'node:fs/promises';
import { Failure, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { exists, makePrivateFolder, writeFileAtomically } from '../host/files.ts';
import { lock } from '../host/lock.ts';
import { requireZstd } from '../image/kernel-archive.ts';
import { buildLock } from '../vm/build-claims.ts';
import { inspect } from '../vm/store.ts';
import { takeAway } from './aftermath.ts';
import { checkNames, checkOutput, deliver, warnOfRoom, type Delivered, type Output } from './archive.ts';
import { checkBegun, checkSettled, recordBegun } from './begun.ts';
import type { Builder } from './builder.ts';
import { chrootBuilder, removeAll } from './chroot-builder.ts';
import { machineName, vmBuilder } from './vm-builder.ts';
import { runPhases, type Facts } from './pipeline.ts';
import { buildId, type KernelRequest } from './request.ts';
import type { HostResources } from './scale.ts';
import { checkSource } from './workfiles.ts';

export interface KernelBuildOptions {
  readonly builder: 'vm' | 'chroot';
  /** Jobs were asked for, and are not simply the host's processors. */
  readonly jobsAsked: boolean;
  readonly output: Output;
  /** Go on from the last finished phase of a build that failed. */
  readonly resume: boolean;
  /** Leave the place there when the archive is safe. */
  readonly keep: boolean;
  /** Leave it there even if somebody presses Ctrl-C. */
  readonly keepInterrupted: boolean;
  /** Take the place away even if the build fails. */
  readonly deleteAlways: boolean;
  readonly overcommit: boolean;
  readonly mirror?: string | undefined;
  /** What runs the machine, if that was chosen. */
  readonly driver?: string | undefined;
  /** What this host has for a machine, where that is not to be looked up. */
  readonly host?: HostResources | undefined;
  readonly deadline: Deadline;
  readonly tell?: ((line: string) => void) | undefined;
}

export interface KernelResult extends Delivered {
  readonly facts: Facts;
  /** The most that the place took while it was built in, in bytes. */
  readonly peak: number;
  /** Lines that say what is left, and how to get rid of it; none if nothing is. */
  readonly left: readonly string[];
  /** What the place took on the host before it was taken away, in bytes. */
  readonly before: number;
  /** And what of it is left. */
  readonly after: number;
}

/**
 * Builds a kernel: lays out the place, runs the phases, brings the archive out, and takes the place away.
 * @throws Failure as the rooms it calls; `locked` while the same build runs; `not-found` for nothing to go on with.
 */
export async function buildKernel(
  ctx: Context,
  request: KernelRequest,
  options: KernelBuildOptions,
): Promise<KernelResult> {
  const id = buildId(request, options.builder);
  const held = await lock(buildLock(ctx, id), 'this very kernel');
  try {
    await requireZstd(ctx);
    await checkOutput(options.output.folder);
    await warnOfRoom(ctx, request, options.output.folder);
    await checkSource(request, ctx.signal);
    await settleEarlier(ctx, id, request, options);
    const builder = await place(ctx, id, request, options);
    return await work(ctx, id, builder, request, options);
  } finally {
    await held.release();
  }
}

async function place(
  ctx: Context,
  id: string,
  request: KernelRequest,
  options: KernelBuildOptions,
): Promise<Builder> {
  const paths = ctx.paths.build(id);
  return withUndo(async (undo) => {
    if (!exists(paths.state)) {
      undo.add('the folder of the build', () => rm(paths.folder, { recursive: true, force: true }));
      await makePrivateFolder(paths.folder);
      await writeFile(paths.log, '');
    }
    const builder = await makeBuilder(ctx, id, request, options);
    if (!exists(paths.state)) await recordBegun(ctx, paths, id, request);
    return builder;
  });
}

/**
 * Deals with an earlier build of the same kernel. A root file system has nothing in it but what is built anew; in a machine
 * somebody may have been at work.
 * @throws Failure `not-found` for nothing to go on with, `already-exists` for a machine that stands in the way
 */
async function settleEarlier(
  ctx: Context,
  id: string,
  request: KernelRequest,
  { resume, builder }: KernelBuildOptions,
): Promise<void> {
  const paths = ctx.paths.build(id);
  const name = machineName(id);
  const machine = builder === 'vm' ? await inspect(ctx, name) : undefined;
  // A machine that was deleted takes its build with it.
  const present = exists(paths.state) && (builder === 'chroot' || machine !== undefined);
  const anew = `to begin anew: ${machine ? `zfsdev delete --force ${name}` : 'leave --resume out'}`;
  if (resume && present) {
    if (builder === 'chroot') await checkSettled(ctx, paths, anew);
    return checkBegun(ctx, paths, request, anew);
  }
  // The machine of a build that was cut off before there was anything to go on with.
  if (machine && !present) {
    throw new Failure('already-exists', `the machine ${name} is in the way, and has no build to go on with`, {
      hint: anew,
      data: { name },
    });
  }
  if (resume) {
    throw new Failure('not-found', 'there is no build of this kernel to go on with', {
      hint: 'leave --resume out; it wants the same options as the build that failed',
    });
  }
  if (machine) {
    throw new Failure('already-exists', `the machine ${name} has an earlier build of this kernel`, {
      hint: `--resume goes on with it, or brings its archive out again\n${anew}`,
      data: { name },
    });
  }
  if (present) {
    const text =
      'there is an earlier build of this kernel; beginning anew (--resume goes on with it instead)';
    ctx.emit({ type: 'notice', level: 'info', text });
  }
  if (exists(paths.folder)) await removeAll(ctx, paths.folder);
}

function makeBuilder(
  ctx: Context,
  id: string,
  request: KernelRequest,
  options: KernelBuildOptions,
): Promise<Builder> {
  return options.builder === 'vm'
    ? vmBuilder(ctx, id, request, options)
    : chrootBuilder(ctx, id, request, options);
}

async function work(
  ctx: Context,
  id: string,
  builder: Builder,
  request: KernelRequest,
  options: KernelBuildOptions,
): Promise<KernelResult> {
  const { log, packed } = ctx.paths.build(id);
  try {
    const { deadline, tell, output } = options;
    // What lies there may be its own archive, which an earlier call brought out.
    const onRelease = (release: string): void =>
      exists(packed) ? undefined : checkNames(output, release, builder.afterwards);
    const zfs = request.zfs.kind !== 'none';
    const facts = await runPhases(ctx, builder, { log, deadline, tell, zfs, onRelease });
    // Where even this finds no room, the only harm is that its own archive would be taken for another one.
    await writeFileAtomically(packed, '').catch(() => undefined);
    const delivered = await step(ctx.emit, 'copy', 'Bringing the archive out', () =>
      deliver(ctx, builder, facts, output, log),
    );
    const before = await builder.used();
    const peak = Math.max(builder.peak?.() ?? 0, Number(facts.get('peak') ?? 0) * 1024);
    const result = { ...delivered, facts, before, peak };
    if (options.keep) return { ...result, after: before, left: builder.afterwards.slice(1) };
    await removeDelivered(ctx, builder, delivered);
    return { ...result, after: 0, left: [] };
  } catch (error) {
    // Who presses Ctrl-C wants it gone, unless they said otherwise.
    if (ctx.signal.aborted && !options.keepInterrupted) await builder.remove();
    else if (options.deleteAlways)
      throw await takeAway(ctx, builder, { id, error, log, folder: options.output.folder });
    throw error;
  }
}

/** Whatever goes wrong from here on: there is a kernel, and where it is is told. */
async function removeDelivered(ctx: Context, builder: Builder, { path }: Delivered): Promise<void> {
  try {
    await builder.remove();
  } catch (error) {
    if (ctx.signal.aborted) throw error;
    const known = error instanceof Failure ? error : undefined;
    const message = `the archive is at ${path}, and ${builder.title} could not be deleted: ${messageOf(error)}`;
    throw new Failure(known?.reason ?? 'files', message, {
      hint: [...(known?.hint ? [known.hint] : []), ...builder.afterwards.slice(1)].join('\n'),
      data: { ...known?.data, archive: path },
      cause: error,
    });
  }
}
