import { expect, it } from 'vitest';
import { leastInTurn } from '../../../bench/measure.ts';

it('takes the least of several turns, and leaves the first of each out', async () => {
  const [a, b] = [
    [0.1, 3, 2, 5],
    [0.1, 4, 8, 6],
  ];
  const next = (values: number[] | undefined) => (): Promise<number> =>
    Promise.resolve(values?.shift() ?? NaN);
  expect(await leastInTurn(3, next(a), next(b))).toEqual({ a: 2, b: 4, ratio: 0.5 });
});
