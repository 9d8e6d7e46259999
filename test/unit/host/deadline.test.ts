import { expect, test } from 'vitest';
import { deadlineIn, parseDuration, poll } from '../../../src/host/deadline.ts';

const never = new AbortController().signal;

test('a poll ends with the first answer', async () => {
  let asked = 0;
  const ask = (): Promise<string | undefined> => Promise.resolve((asked += 1) === 3 ? 'yes' : undefined);
  expect(await poll('it', ask, { deadline: deadlineIn(30_000), signal: never })).toBe('yes');
  expect(asked).toBe(3);
});

test('a poll asks at least once, and then ends by its deadline', async () => {
  let asked = 0;
  const ask = (): Promise<undefined> => {
    asked += 1;
    return Promise.resolve(undefined);
  };
  const polling = poll('the pool', ask, { deadline: deadlineIn(0), signal: never });
  await expect(polling).rejects.toMatchObject({ reason: 'deadline' });
  expect(asked).toBe(1);
});

test('a poll ends by the signal, also while it pauses', async () => {
  const controller = new AbortController();
  const ask = (): Promise<undefined> => {
    controller.abort();
    return Promise.resolve(undefined);
  };
  const polling = poll('it', ask, { deadline: deadlineIn(30_000), signal: controller.signal });
  await expect(polling).rejects.toMatchObject({ reason: 'interrupted' });
});

test.each([
  ['90', 90_000],
  ['90s', 90_000],
  ['1.5m', 90_000],
  ['2h', 7_200_000],
  ['7d', 604_800_000],
  ['250ms', 250],
])('%s is %d ms', (text, milliseconds) => {
  expect(parseDuration(text)).toBe(milliseconds);
});

test.each(['', '-1', '5 d', 'm', '1h30m'])('%j is no time span', (text) => {
  expect(() => parseDuration(text)).toThrow('is not a time span');
});
