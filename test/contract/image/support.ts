import { createHash, randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { Failure, hasCode } from '../../../src/core/errors.ts';
import { header } from '../../support/qcow2.ts';
import type { TestContext } from '../../support/context.ts';

/** A qcow2 of this virtual size that takes a megabyte and more, of which every part is different. */
export function disk(virtual = 64 * 2 ** 20, bytes = 2 ** 20): Buffer {
  return Buffer.concat([header(virtual), randomBytes(bytes)]);
}

export function sha(content: Buffer, algorithm: 'sha256' | 'sha512' = 'sha256'): string {
  return `${algorithm}:${createHash(algorithm).update(content).digest('hex')}`;
}

/** What lies among the images, hidden files included. */
export async function stored(ctx: TestContext): Promise<string[]> {
  try {
    return (await readdir(ctx.paths.images)).sort();
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw error;
  }
}

export async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const error: unknown = await work.then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  if (error instanceof Failure) return error;
  throw error;
}
