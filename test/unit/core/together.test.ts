import { expect, test } from 'vitest';
import { together } from '../../../src/core/together.ts';

test('a failure waits for those that have not ended', async () => {
  const ended: string[] = [];
  let end: () => void = () => undefined;
  const slow = new Promise<void>((resolve) => (end = resolve)).then(() => ended.push('slow'));
  const all = together([Promise.reject(new Error('cut off')), slow]).catch((error: unknown) =>
    ended.push(String(error)),
  );
  // Longer than a failure takes on its way.
  await new Promise((resolve) => setImmediate(resolve));
  end();
  await all;
  expect(ended).toEqual(['slow', 'Error: cut off']);
});

test('values come in their order', async () => {
  expect(await together([Promise.resolve(1), 'two'])).toEqual([1, 'two']);
});
