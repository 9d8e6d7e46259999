import { availableParallelism } from 'node:os';
import type { Context } from '../host/context.ts';
import { wholeDiskDeadline } from './img.ts';

/**
 * True if a guest would read the same from both, which are of one virtual size in bytes. Comparing takes one processor, so
 * that parts of the disk are compared beside each other.
 */
export async function compare(ctx: Context, a: string, b: string, virtual: number): Promise<boolean> {
  const count = Math.max(1, Math.min(mostParts, availableParallelism(), Math.floor(virtual / leastPart)));
  const size = Math.ceil(virtual / count / sector) * sector;
  const parts = Array.from({ length: count }, (_, i) => ({
    offset: i * size,
    size: Math.min(size, virtual - i * size),
  }));
  // All have ended before anything is said of one: nothing goes on reading behind its owner's back.
  const found = await Promise.allSettled(parts.map((part) => comparePart(ctx, a, b, part)));
  return found.every((each) => {
    if (each.status === 'rejected') throw each.reason;
    return each.value;
  });
}

const mostParts = 4;
const leastPart = 256 * 2 ** 20;
const sector = 512;

interface Part {
  /** Bytes, in whole sectors. */
  readonly offset: number;
  readonly size: number;
}

async function comparePart(ctx: Context, a: string, b: string, part: Part): Promise<boolean> {
  const partOf = (filename: string): string =>
    `json:${JSON.stringify({ driver: 'raw', ...part, file: { driver: 'qcow2', file: { driver: 'file', filename } } })}`;
  return sameContent(ctx, [partOf(a), partOf(b)]);
}

/** Has qemu-img compare two disks, given with their options; false if they differ. @throws Failure `process`, `interrupted` */
export async function sameContent(ctx: Context, disks: readonly string[]): Promise<boolean> {
  const { exitCode } = await ctx.run(['qemu-img', 'compare', '-q', ...disks], {
    effect: 'read',
    deadline: wholeDiskDeadline,
    signal: ctx.signal,
    orphanSignal: 'KILL',
    accept: [1],
  });
  return exitCode === 0;
}
