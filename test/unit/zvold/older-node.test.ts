import { expect, test } from 'vitest';
import { firstOf } from '../../../src/zvold/older-node.ts';

test('aborts with the first of its signals, for the reason of that one', () => {
  const [one, two] = [new AbortController(), new AbortController()];
  const either = firstOf([one.signal, two.signal]);
  expect(either.aborted).toBe(false);
  two.abort('the second');
  one.abort('the first');
  expect(either.aborted).toBe(true);
  expect(either.reason).toBe('the second');
});

test('is aborted from the start if one of them is', () => {
  expect(firstOf([new AbortController().signal, AbortSignal.abort('before')]).reason).toBe('before');
});

test('never aborts without any', () => {
  expect(firstOf([]).aborted).toBe(false);
});
