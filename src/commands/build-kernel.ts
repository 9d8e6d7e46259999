import { resolve } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
import { buildKernel as build, type KernelResult } from '../kernel/build.ts';
import { describeConfig, describeSource, parseRequest, type RequestOptions } from '../kernel/request.ts';
import { duration } from '../ui/progress.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface BuildKernelOptions extends GlobalOptions, RequestOptions {
  readonly output?: string;
  readonly keep?: boolean;
  readonly resume?: boolean;
  readonly overcommit?: boolean;
  readonly mirror?: string;
  readonly timeout?: string;
}

/** `zfsdev build-kernel`. */
export async function buildKernel(session: Session, options: BuildKernelOptions): Promise<void> {
  const began = performance.now();
  const { ctx } = session;
  const timeout = parseDuration(options.timeout ?? '24h');
  const request = await parseRequest(options);
  const output = resolve(options.output ?? '.');
  if (ctx.dryRun) {
    const text = `build a kernel from ${describeSource(request.source)} with ${describeConfig(request.config)}, and write its archive to ${output}`;
    ctx.emit({ type: 'would', text });
    return;
  }
  const result = await build(ctx, request, {
    output,
    keep: options.keep === true,
    resume: options.resume === true,
    deleteAlways: false,
    overcommit: options.overcommit === true,
    mirror: options.mirror,
    deadline: deadlineIn(timeout),
    ...(options.verbose ? { tell: (line: string) => void process.stderr.write(`${line}\n`) } : {}),
  });
  const milliseconds = performance.now() - began;
  await session.answer(document(result, milliseconds), () => text(session, result, milliseconds));
}

function peakOf({ facts }: KernelResult): number {
  return Number(facts.get('peak') ?? 0) * 1024;
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
    peakBytes: peakOf(result),
    usedBeforeBytes: before,
    usedAfterBytes: after,
    freedBytes: before - after,
    seconds: Math.round(milliseconds) / 1000,
  };
}

function text({ paint }: Session, result: KernelResult, milliseconds: number): string {
  const { path, log, facts, before, after } = result;
  const zfs = facts.get('zfs');
  return [
    `${paint('good', facts.get('release') ?? '')} is built${zfs ? `, with OpenZFS ${zfs}` : ''} ${paint('faint', `(${duration(milliseconds)})`)}`,
    `  archive   ${path}`,
    `  log       ${log}`,
    `  peak      ${formatBytes(peakOf(result))} while it was built (the sizing guide says 12 to 13 GB)`,
    `  host      ${formatBytes(before)} before, ${formatBytes(after)} now: ${formatBytes(before - after)} came back`,
    '',
  ].join('\n');
}
