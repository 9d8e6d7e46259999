import { expect, test } from 'vitest';
import { MiB } from '../../../src/core/bytes.ts';
import { RateMeter } from '../../../src/image/rate.ts';

function meter(): { told: [string, number?][]; at: (ms: number, done: number, total?: number) => void } {
  const told: [string, number?][] = [];
  let now = 0;
  const rates = new RateMeter(
    (text, fraction) => told.push(fraction === undefined ? [text] : [text, fraction]),
    () => now,
  );
  return {
    told,
    at: (ms, done, total) => {
      now = ms;
      rates.moved(done * MiB, total === undefined ? undefined : total * MiB);
    },
  };
}

test('tells how far it is, how fast, and how long it takes', () => {
  const { told, at } = meter();
  at(0, 0, 100);
  at(1000, 10, 100);
  expect(told).toEqual([
    ['0 B of 100 MiB', 0],
    ['10 MiB of 100 MiB, 10 MiB/s, 9 s left', 0.1],
  ]);
});

test('says nothing more often than twice a second, but always the end', () => {
  const { told, at } = meter();
  for (let ms = 0; ms <= 1000; ms += 100) at(ms, ms / 100, 10);
  expect(told).toHaveLength(3);
  expect(told.at(-1)?.[1]).toBe(1);
});

test('goes by the last seconds, and forgets what was before a new beginning', () => {
  const { told, at } = meter();
  at(0, 0, 1000);
  at(10_000, 10, 1000);
  at(11_000, 110, 1000);
  expect(told.at(-1)?.[0]).toContain('100 MiB/s');
  at(12_000, 5, 1000);
  expect(told.at(-1)?.[0]).toBe('5 MiB of 1000 MiB');
});

test('without a length there is no fraction', () => {
  const { told, at } = meter();
  at(0, 1);
  expect(told).toEqual([['1 MiB']]);
});
