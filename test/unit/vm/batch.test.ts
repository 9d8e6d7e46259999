import { expect, test } from 'vitest';
import { runBatch } from '../../../src/vm/batch.ts';

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const always = { foundNoRoom: () => false };

test('results come in order, whoever ends first', async () => {
  const results = await runBatch({ count: 3, limit: 3, ...always }, async (index) => {
    for (let i = 0; i < 3 - index; i += 1) await tick();
    return index;
  });
  expect(results).toEqual([0, 1, 2]);
});

test('never more at a time than the limit', async () => {
  let [active, most] = [0, 0];
  await runBatch({ count: 7, limit: 2, ...always }, async () => {
    most = Math.max(most, ++active);
    await tick();
    active -= 1;
  });
  expect(most).toBe(2);
});

test('who finds no room is tried again when another one has ended', async () => {
  let room = 2;
  const tries: number[] = [];
  const results = await runBatch(
    { count: 5, limit: 5, foundNoRoom: (result: string) => result === 'full' },
    async (index) => {
      tries.push(index);
      if (room === 0) return 'full';
      room -= 1;
      await tick();
      room += 1;
      return `done ${index}`;
    },
  );
  expect(results).toEqual([0, 1, 2, 3, 4].map((index) => `done ${index}`));
  expect(tries.length).toBeGreaterThan(5);
});

test('who finds no room while nobody else is at work is told so', async () => {
  const results = await runBatch({ count: 3, limit: 3, foundNoRoom: (result) => result === 'full' }, () =>
    Promise.resolve('full'),
  );
  expect(results).toEqual(['full', 'full', 'full']);
});
