import type { Context } from '../host/context.ts';
import { runWatched } from '../host/watched.ts';

/**
 * True if a guest would read the same from both, each with all that it stands on; beyond the end of the shorter one, zeros.
 * In one piece: parts of a disk, as qemu-img can be given them, are looked at without their backing files.
 */
export function compare(ctx: Context, a: string, b: string): Promise<boolean> {
  return sameContent(ctx, ['-f', 'qcow2', '-F', 'qcow2', a, b]);
}

/** Has qemu-img compare two disks, given with their options; false if they differ. @throws Failure `process`, `interrupted` */
export async function sameContent(ctx: Context, disks: readonly string[]): Promise<boolean> {
  const { exitCode } = await runWatched(ctx, ['qemu-img', 'compare', '-q', ...disks], {
    effect: 'read',
    orphanSignal: 'KILL',
    accept: [1],
  });
  return exitCode === 0;
}
