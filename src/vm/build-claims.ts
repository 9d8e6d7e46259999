import { readdir } from 'node:fs/promises';
import type { Claim } from '../budget/admission.ts';
import { hasCode } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { readIfExists, writeFileAtomically } from '../host/files.ts';
import { isLocked } from '../host/lock.ts';

/** The lock of whoever is at one kernel build. */
export function buildLock(ctx: Context, id: string): string {
  return ctx.paths.lock(`build-${id}`);
}

/** Writes down how far a build on the host itself can grow, and what it has taken, in bytes. */
export async function claimBuild(ctx: Context, id: string, bound: number, allocated: number): Promise<void> {
  await writeFileAtomically(ctx.paths.build(id).claim, JSON.stringify({ bound, allocated }));
}

/** How far the kernels that are being built now, on the host itself, can still grow. */
export async function buildClaims(ctx: Context): Promise<Claim[]> {
  const ids = await readdir(ctx.paths.builds).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return [];
    throw error;
  });
  const claims = await Promise.all(ids.map((id) => claimOf(ctx, id)));
  return claims.filter((claim) => claim !== undefined);
}

async function claimOf(ctx: Context, id: string): Promise<Claim | undefined> {
  const { claim, folder } = ctx.paths.build(id);
  const text = readIfExists(claim);
  // What nobody is at does not grow.
  if (text === undefined || !(await isLocked(buildLock(ctx, id)))) return undefined;
  try {
    const { bound, allocated } = JSON.parse(text) as { bound: number; allocated: number };
    return { what: `the kernel build ${id}`, path: folder, bound, allocated };
  } catch {
    return undefined;
  }
}
