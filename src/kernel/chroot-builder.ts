import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { exists, makePrivateFolder } from '../host/files.ts';
import { lockWaiting } from '../host/lock.ts';
import type { BuildPaths } from '../host/paths.ts';
import { endedOutright, printable } from '../host/run.ts';
import { contained } from '../image/bootstrap.ts';
import { ensureToolchain, toolchainSize, unpackToolchain } from '../image/toolchain.ts';
import { isRoot } from '../image/workplace.ts';
import { checkClaims } from '../vm/admission.ts';
import { claimBuild } from '../vm/build-claims.ts';
import { outOfTime, wordsFor, type Builder, type Phase, type PhaseOptions } from './builder.ts';
import type { KernelRequest } from './request.ts';
import { layOutWork, neededSpace } from './workfiles.ts';

export interface ChrootOptions {
  /** Jobs were asked for, and are not simply the host's processors. */
  readonly jobsAsked: boolean;
  readonly overcommit: boolean;
  readonly mirror?: string | undefined;
}

/**
 * A root file system of Debian's in the build's folder, entered in namespaces of its own: what it mounts and starts ends with
 * it. Takes over the place that is there, for a build that goes on.
 * @throws Failure `unsupported`, `no-space`, `dependency`, `image`, `files`
 */
export async function chrootBuilder(
  ctx: Context,
  id: string,
  request: KernelRequest,
  options: ChrootOptions,
): Promise<Builder> {
  const paths = ctx.paths.build(id);
  if (process.platform !== 'linux') {
    throw new Failure('unsupported', 'a kernel is built in a root file system on Linux only', {
      hint: 'leave --builder out: a machine can do it anywhere',
    });
  }
  const jobs = options.jobsAsked ? request.jobs : undefined;
  if (!exists(paths.state)) {
    await admit(ctx, id, request, options.overcommit);
    const tools = await ensureToolchain(ctx, 'trixie', options.mirror);
    await withUndo(async (undo) => {
      undo.add('the place', () => removeAll(ctx, paths.folder));
      await step(ctx.emit, 'disk', 'Making the place to build in', async () => {
        await unpackToolchain(ctx, tools, paths.root);
        const needed = options.overcommit ? 0 : neededSpace(request);
        await layOutWork(ctx, paths.work, request, { inMachine: false, needed });
      });
    });
  }
  await makePrivateFolder(ctx.paths.compilerCache);
  return {
    title: 'a root file system on this host',
    run: (phase, how) => run(ctx, paths, phase, jobs, how),
    fetch: (name, target) => copyFile(join(paths.work, 'out', name), target),
    grown: (work) =>
      claimBuild(ctx, id, boundOf(request), Math.min(boundOf(request), work + toolchainSize.unpacked)),
    used: () => sizeOf(ctx, paths.folder),
    remove: () => step(ctx.emit, 'delete', 'Taking the place away', () => removeAll(ctx, paths.folder)),
    afterwards: [
      'go on: the same command with --resume',
      `look at it: ${printable(['ls', paths.work])}`,
      `get rid of it: ${printable(['rm', '-rf', paths.folder])}`,
    ],
    anew: 'begin anew: the same command without --resume',
  };
}

/** Check and reservation happen under one lock, as for machines. */
async function admit(ctx: Context, id: string, request: KernelRequest, overcommit: boolean): Promise<void> {
  const path = ctx.paths.build(id).folder;
  const what = 'the kernel build';
  const claim = (name: string, bound: number) => ({ what: name, path, bound, allocated: 0 });
  const own = [
    claim(what, neededSpace(request)),
    claim('its compiler and tools', toolchainSize.packed + toolchainSize.unpacked),
  ];
  const held = await lockWaiting(ctx.paths.lock('budget'), ctx.signal);
  try {
    await checkClaims(ctx, own, { what, path, free: 0 }, overcommit);
    await claimBuild(ctx, id, boundOf(request), 0);
  } finally {
    await held.release();
  }
}

function boundOf(request: KernelRequest): number {
  return neededSpace(request) + toolchainSize.unpacked;
}

/** As the root of a namespace a user is root to the files that are their own, and to nothing else. */
export const asOwnRoot = ['unshare', '--user', '--map-root-user', ...contained.slice(1)] as const;

function enter(
  ctx: Context,
  paths: BuildPaths,
  phase: Phase,
  jobs: number | undefined,
): readonly [string, ...string[]] {
  const script = join(paths.work, 'provision', 'kernel-enter.sh');
  const entering = isRoot() ? contained : asOwnRoot;
  return [
    ...(entering as readonly string[] as [string, ...string[]]),
    'sh',
    script,
    paths.root,
    paths.work,
    ctx.paths.compilerCache,
    phase,
    ...wordsFor(jobs),
  ];
}

async function run(
  ctx: Context,
  paths: BuildPaths,
  phase: Phase,
  jobs: number | undefined,
  { onLine, deadline, signal }: PhaseOptions,
): Promise<number> {
  try {
    const { exitCode } = await ctx.run(enter(ctx, paths, phase, jobs), {
      effect: 'write',
      // None would be a deadline of 0.
      deadline: Math.max(1, deadline),
      signal,
      ...endedOutright,
      onLine,
      logFile: paths.log,
      accept: [1, 2],
    });
    return exitCode;
  } catch (error) {
    throw explainEntering(phase, error);
  }
}

function explainEntering(phase: Phase, error: unknown): unknown {
  if (error instanceof Failure && error.reason === 'deadline') return outOfTime(phase, error);
  if (!(error instanceof Failure) || !/unshare: .*(not permitted|failed)/.test(error.detail ?? ''))
    return error;
  return new Failure('dependency', 'this user may not enter a root file system of their own here', {
    detail: error.detail ?? '',
    hint: 'leave --builder out, or build as root: sudo zfsdev build-kernel --builder chroot',
    cause: error,
  });
}

/** Blocks of all files, in bytes. */
async function sizeOf(ctx: Context, folder: string): Promise<number> {
  const { stdout } = await ctx.run(['du', '-s', '--block-size=1', '--', folder], {
    effect: 'read',
    deadline: 600_000,
    // A folder that can't be looked into is not counted; no reason to lose a kernel that is built.
    accept: [1],
  });
  return Number(stdout.split('\t')[0]);
}

/** Removes a build's folder, whatever is in it. */
export async function removeAll(ctx: Context, folder: string): Promise<void> {
  const remove = { effect: 'write', deadline: 600_000 } as const;
  // Each of a kernel's many files costs Node several times what it costs this program.
  await ctx.run(['rm', '-rf', '--', folder], { ...remove, accept: [1] });
  if (!exists(folder)) return;
  // Some of Debian's folders are closed even to their owner.
  await ctx.run(['chmod', '-R', 'u+rwX', '--', folder], { ...remove, accept: [1] }).catch(() => undefined);
  await rm(folder, { recursive: true, force: true });
}
