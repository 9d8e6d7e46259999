import { writeFile } from 'node:fs/promises';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { exists, writeFileAtomically } from '../host/files.ts';
import { lock } from '../host/lock.ts';
import { deliver, type Delivered } from './archive.ts';
import type { Builder } from './builder.ts';
import { chrootBuilder } from './chroot-builder.ts';
import { runPhases, type Facts } from './pipeline.ts';
import { buildId, type KernelRequest } from './request.ts';
import { checkSource } from './workfiles.ts';

export interface KernelBuildOptions {
  /** The folder that gets the archive. */
  readonly output: string;
  /** Go on from the last finished phase of a build that failed. */
  readonly resume: boolean;
  /** Leave the place there when the archive is safe. */
  readonly keep: boolean;
  /** Take the place away even if the build fails. */
  readonly deleteAlways: boolean;
  readonly overcommit: boolean;
  readonly mirror?: string | undefined;
  readonly deadline: Deadline;
  readonly tell?: ((line: string) => void) | undefined;
}

export interface KernelResult extends Delivered {
  readonly facts: Facts;
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
  const id = buildId(request, 'chroot');
  const held = await lock(ctx.paths.lock(`build-${id}`), 'this very kernel');
  try {
    await checkSource(request, ctx.signal);
    const paths = ctx.paths.build(id);
    if (options.resume && !exists(paths.state)) {
      throw new Failure('not-found', 'there is no build of this kernel to go on with', {
        hint: 'leave --resume out; it wants the same options as the build that failed',
      });
    }
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
  if (!options.resume && exists(paths.folder)) {
    ctx.emit({
      type: 'notice',
      level: 'info',
      text: 'an earlier build of this kernel was cut off; beginning anew (--resume goes on)',
    });
    await (await chrootBuilder(ctx, paths, request, options)).remove();
  }
  const builder = await step(ctx.emit, 'disk', 'Making the place to build in', () =>
    chrootBuilder(ctx, paths, request, options),
  );
  if (!exists(paths.state)) {
    await writeFile(paths.log, '');
    await writeFileAtomically(paths.state, `${JSON.stringify({ version: 1, id, request }, null, 2)}\n`);
  }
  return builder;
}

async function work(
  ctx: Context,
  id: string,
  builder: Builder,
  request: KernelRequest,
  options: KernelBuildOptions,
): Promise<KernelResult> {
  const { log } = ctx.paths.build(id);
  try {
    const { deadline, tell } = options;
    const facts = await runPhases(ctx, builder, { log, deadline, tell, zfs: request.zfs.kind !== 'none' });
    const delivered = await step(ctx.emit, 'copy', 'Bringing the archive out', () =>
      deliver(ctx, builder, facts, options.output, log),
    );
    const before = await builder.used();
    if (options.keep) return { ...delivered, facts, before, after: before };
    await step(ctx.emit, 'delete', 'Taking the place away', () => builder.remove());
    return { ...delivered, facts, before, after: 0 };
  } catch (error) {
    // Who presses Ctrl-C wants it gone, unless they said otherwise.
    const interrupted = ctx.signal.aborted && !options.keep;
    if (options.deleteAlways || interrupted) await builder.remove();
    throw error;
  }
}
