import { freemem, totalmem } from 'node:os';

/**
 * Memory that is free for a machine, in bytes: the host's, or as much as the container may have that this runs in. What macOS calls
 * free is what nothing was ever read into; half of the memory is a fair guess there.
 */
export function freeMemory(
  platform: NodeJS.Platform = process.platform,
  free: number = platform === 'darwin' ? totalmem() / 2 : freemem(),
  limit: number = process.constrainedMemory(),
): number {
  // 0 is none, and so is what is more than there is.
  return limit > 0 ? Math.min(free, limit) : free;
}
