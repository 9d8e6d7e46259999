import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { watchGuest } from '../../../src/kernel/guest-watch.ts';

const options = { patience: 1000, questions: 3 };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('asks nothing of a guest that speaks', async () => {
  const ask = vi.fn(() => Promise.resolve());
  const watch = watchGuest(ask, options);
  for (let i = 0; i < 20; i += 1) {
    await vi.advanceTimersByTimeAsync(900);
    watch.heard();
  }
  expect(ask).not.toHaveBeenCalled();
  watch.stop();
});

it('lets a guest be silent as long as it answers', async () => {
  const ask = vi.fn(() => Promise.resolve());
  const watch = watchGuest(ask, options);
  await vi.advanceTimersByTimeAsync(100_500);
  expect(ask).toHaveBeenCalledTimes(100);
  expect(watch.lost.aborted).toBe(false);
  watch.stop();
});

it('takes one for lost that neither speaks nor answers, however often it is asked', async () => {
  const ask = vi.fn(() => Promise.reject(new Error('no answer')));
  const watch = watchGuest(ask, options);
  await vi.advanceTimersByTimeAsync(2900);
  expect(watch.lost.aborted).toBe(false);
  await vi.advanceTimersByTimeAsync(200);
  expect(watch.lost.aborted).toBe(true);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(ask).toHaveBeenCalledTimes(3);
});

it('begins to count anew with an answer, or a word of its own', async () => {
  const answers = [false, false, true, false, false];
  const watch = watchGuest(
    () => (answers.shift() === true ? Promise.resolve() : Promise.reject(new Error('no'))),
    options,
  );
  await vi.advanceTimersByTimeAsync(5500);
  expect(answers).toEqual([]);
  watch.heard();
  await vi.advanceTimersByTimeAsync(2900);
  expect(watch.lost.aborted).toBe(false);
  await vi.advanceTimersByTimeAsync(200);
  expect(watch.lost.aborted).toBe(true);
});

it('asks one question at a time, and none when it is over', async () => {
  let signal: AbortSignal | undefined;
  const ask = vi.fn((until: AbortSignal) => {
    signal = until;
    return new Promise<void>(() => undefined);
  });
  const watch = watchGuest(ask, options);
  await vi.advanceTimersByTimeAsync(1000);
  watch.heard();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(ask).toHaveBeenCalledTimes(1);
  watch.stop();
  expect(signal?.aborted).toBe(true);
  expect(watch.lost.aborted).toBe(false);
});
