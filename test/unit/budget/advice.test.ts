import { expect, test } from 'vitest';
import { adviceFor } from '../../../src/budget/advice.ts';

const GB = 10 ** 9;

test.each([
  [80 * GB, 'plenty'],
  [50 * GB, 'plenty'],
  [50 * GB - 1, 'deleted after use'],
  [20 * GB, 'deleted after use'],
  [20 * GB - 1, 'tight'],
  [10 * GB, 'tight'],
  [10 * GB - 1, 'nothing that builds'],
  [5 * GB, 'nothing that builds'],
  [5 * GB - 1, 'too little'],
  [0, 'too little'],
])('%i bytes free', (free, words) => {
  const { verdict, steps } = adviceFor(free);
  expect(verdict).toContain(words);
  expect(steps.length).toBeGreaterThan(0);
});
