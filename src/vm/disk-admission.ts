import type { Claim } from '../budget/admission.ts';
import type { Bytes } from '../core/bytes.ts';
import type { Context } from '../host/context.ts';
import { lockWaiting } from '../host/lock.ts';
import { measure, type DiskFormat } from '../qemu/img.ts';
import { checkClaims } from './admission.ts';

/** What is asked for: how it reads in a refusal, and what it can take. */
export interface Wanted {
  /** As it reads after "in the worst case". */
  readonly what: string;
  readonly claims: readonly Claim[];
}

/**
 * Does something that takes room on the host, once that is admitted, before anybody else is: `work` writes down what makes it
 * count from then on.
 * @throws Failure `no-space`, whatever `work` throws
 */
export async function withRoom<T>(
  ctx: Context,
  { what, claims }: Wanted,
  overcommit: boolean,
  work: () => Promise<T>,
): Promise<T> {
  return withFilesOfAll(ctx, async () => {
    await checkClaims(ctx, claims, { what, path: claims[0]?.path ?? ctx.paths.home, free: 0 }, overcommit);
    return work();
  });
}

/** Does something while no machine is given room, or a file; so that of two who want the same, the second sees the first. */
export async function withFilesOfAll<T>(ctx: Context, work: () => Promise<T>): Promise<T> {
  const held = await lockWaiting(ctx.paths.lock('budget'), ctx.signal);
  try {
    return await work();
  } finally {
    await held.release();
  }
}

/** The most bytes that a disk of this virtual size can take on the host. */
export async function boundOf(ctx: Context, format: DiskFormat, size: Bytes): Promise<number> {
  return format === 'raw' ? size : (await measure(ctx, { size })).fullyAllocated;
}
