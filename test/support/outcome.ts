import { expect } from 'vitest';
import type { Result } from './zfsdev.ts';

/** A command that has to succeed, without a word about an error. */
export async function done(result: Promise<Result>): Promise<Result> {
  const ended = await result;
  expect(ended.stderr).not.toMatch(/^error:/m);
  expect(ended.exitCode).toBe(0);
  return ended;
}

/** A command that has to fail with this exit code, in these words, and not by a stack. */
export async function refused(
  result: Promise<Result>,
  exitCode: number | 'any',
  ...words: readonly (string | RegExp)[]
): Promise<void> {
  const ended = await result;
  for (const word of words) {
    if (typeof word === 'string') expect(ended.stderr).toContain(word);
    else expect(ended.stderr).toMatch(word);
  }
  expect(ended.stderr).not.toMatch(/\n\s+at /);
  if (exitCode === 'any') expect(ended.exitCode).toBeGreaterThan(0);
  else expect(ended.exitCode).toBe(exitCode);
}
