import { expect, it } from 'vitest';
import { duration } from '../../../src/ui/progress.ts';

it.each([
  [840, '0.8 s'],
  [23_900, '24 s'],
  [59_600, '1 min 0 s'],
  [192_400, '3 min 12 s'],
  [179_700, '3 min 0 s'],
])('a span of %i ms is told as %s', (milliseconds, text) => {
  expect(duration(milliseconds)).toBe(text);
});
