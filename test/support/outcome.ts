import { expect } from 'vitest';
import type { Result } from './zfsdev.ts';

/** A command that has to succeed, without a word about an error. */
export async function done(result: Promise<Result>): Promise<Result> {
  const ended = await result;
  expect(ended.stderr).not.toMatch(/^error:/m);
  expect(ended.exitCode).toBe(0);
  return ended;
}

/** A command that has to fail with this exit code, in these words. */
export async function refused(
  result: Promise<Result>,
  exitCode: number,
  ...words: readonly string[]
): Promise<void> {
  const ended = await result;
  for (const word of words) expect(ended.stderr).toContain(word);
  expect(ended.exitCode).toBe(exitCode);
}
