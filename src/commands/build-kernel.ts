import { resolve } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
import { buildKernel as build, type KernelResult } from '../kernel/build.ts';
import { describeConfig, describeSource, parseRequest, type RequestOptions } from '../kernel/request.ts';
import { duration } from '../ui/progress.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface BuildKernelOptions extends GlobalOptions, RequestOptions {
  readonly output?: string;
  /** Replace an archive and a log of the same release. */
  readonly overwrite?: boolean;
  readonly builder?: string;
  /** What runs the machine; the same choice as `up` has. */
  readonly driver?: string;
  /** True, or `always`: even if the build fails. */
  readonly deleteAfter?: boolean | string;
  readonly keep?: boolean;
  readonly resume?: boolean;
  readonly overcommit?: boolean;
  readonly mirror?: string;
  readonly timeout?: string;
  readonly installDeps?: boolean;
  readonly yes?: boolean;
}

/** `zfsdev build-kernel`. */
export async function buildKernel(session: Session, options: BuildKernelOptions): Promise<void> {
  const began = performance.now();
  const { ctx } = session;
  const timeout = parseDuration(options.timeout ?? '24h');
  const request = await parseRequest(options);
  const builder = options.builder === 'chroot' ? 'chroot' : 'vm';
  checkChoices(options);
  const output = resolve(options.output ?? '.');
  if (options.installDeps) {
    const { installDependencies } = await import('../doctor/fix.ts');
    await installDependencies(session, { yes: options.yes === true, needed: ['zstd'] });
  }
  if (ctx.dryRun) {
    const where =
      builder === 'vm' ? 'in a machine of the template kernel-build' : 'in a root file system on this host';
    const what = `build a kernel from ${describeSource(request.source)} with ${describeConfig(request.config)}`;
    const text = `${what}, ${where}, and write its archive to ${output}`;
    ctx.emit({ type: 'would', text });
    return;
  }
  const result = await build(ctx, request, {
    output: { folder: output, overwrite: options.overwrite === true },
    builder,
    jobsAsked: options.jobs !== undefined,
    ...(options.driver === undefined ? {} : { driver: options.driver }),
    // A root file system is nothing to come back to; a machine is, unless it shall go.
    keep: options.keep === true || (builder === 'vm' && options.deleteAfter === undefined),
    keepInterrupted: options.keep === true,
    resume: options.resume === true,
    deleteAlways: options.deleteAfter === 'always',
    overcommit: options.overcommit === true,
    mirror: options.mirror,
    deadline: deadlineIn(timeout),
    ...(options.verbose ? { tell: (line: string) => void process.stderr.write(`${line}\n`) } : {}),
  });
  const milliseconds = performance.now() - began;
  await session.answer(document(result, milliseconds), () => text(session, result, milliseconds));
}

/** @throws Failure `usage` */
function checkChoices({ deleteAfter, keep, builder, driver }: BuildKernelOptions): void {
  if (driver !== undefined && builder === 'chroot')
    throw new Failure('usage', '--driver and --builder chroot exclude each other: there is no machine');
  if (typeof deleteAfter === 'string' && deleteAfter !== 'always') {
    throw new Failure('usage', `--delete-after=${deleteAfter}: it is "always", or nothing`, {
      hint: '--delete-after deletes when the archive is safe, --delete-after=always on failure too',
    });
  }
  if (deleteAfter !== undefined && keep)
    throw new Failure('usage', '--keep and --delete-after exclude each other');
}

function document(result: KernelResult, milliseconds: number): object {
  const { path, sha256, log, facts, before, after } = result;
  return {
    archive: path,
    sha256,
    log,
    release: facts.get('release'),
    source: facts.get('source'),
    zfs: facts.get('zfs') ?? null,
    peakBytes: result.peak,
    usedBeforeBytes: before,
    usedAfterBytes: after,
    freedBytes: before - after,
    seconds: Math.round(milliseconds) / 1000,
  };
}

function text({ paint }: Session, result: KernelResult, milliseconds: number): string {
  const { path, log, facts, before, after, left } = result;
  const zfs = facts.get('zfs');
  return [
    `${paint('good', facts.get('release') ?? '')} is built${zfs ? `, with OpenZFS ${zfs}` : ''} ${paint('faint', `(${duration(milliseconds)})`)}`,
    `  archive   ${path}`,
    `  log       ${log}`,
    `  peak      ${formatBytes(result.peak)} while it was built (the sizing guide says 12 to 13 GB)`,
    `  host      ${formatBytes(before)} before, ${formatBytes(after)} now: ${formatBytes(before - after)} came back`,
    ...left.map((line) => `  ${line}`),
    '',
  ].join('\n');
}
