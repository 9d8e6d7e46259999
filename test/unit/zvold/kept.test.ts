import { expect, it } from 'vitest';
import { Checkpoints, mostBehind } from '../../../src/zvold/kept.ts';

const MiB = 2 ** 20;

/** What is told to be safe while so many MiB come, one after the other. */
async function toldOf(pieces: number, safe: number): Promise<number[]> {
  const told: number[] = [];
  let flushed = 0;
  const checkpoints = new Checkpoints(
    () => Promise.resolve(void (flushed += 1)),
    (bytes) => {
      expect(flushed).toBe(told.length + 1);
      told.push(bytes / MiB);
    },
    safe * MiB,
  );
  for (let piece = 1; piece <= pieces; piece += 1) await checkpoints.passed((safe + piece) * MiB);
  return told;
}

it('a download is made safe at once, then seldom, and before it is told so', async () => {
  expect(await toldOf(300, 0)).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 192, 256]);
});

it('one that goes on is made safe at the pace that it had, and no more is behind than is counted with', async () => {
  const told = await toldOf(200, 10);
  expect(told).toEqual([20, 40, 80, 144, 208]);
  expect(64 * MiB + MiB).toBeLessThan(mostBehind);
});
