import { expect, it } from 'vitest';
import { estimateMake, makeMeter, roughly } from '../../../src/kernel/progress.ts';

it('counts the objects of a make, and tells their rate', () => {
  let now = 0;
  const meter = makeMeter(100, () => now);
  expect(meter.take('make: Entering directory')).toBeUndefined();
  expect(meter.take('  HOSTCC  scripts/basic/fixdep')).toBeUndefined();
  expect(meter.take('  AR      init/built-in.a')).toBeUndefined();
  now = 1000;
  meter.take('  CC      init/main.o');
  expect(meter.take('  CC [M]  fs/ext4/super.o')).toMatchObject({
    text: expect.stringMatching(/^2 of about \d+ objects, 2\.0\/s$/) as string,
  });
});

it('tells the rate of a slow one by the minute', () => {
  let now = 0;
  const meter = makeMeter(100, () => now);
  now = 5_000;
  expect(meter.take('  CC      init/main.o')?.text).toMatch(/ objects, 12\/min$/);
});

it.each([
  [20_000, 'a minute'],
  [3.2 * 60_000, '4 min'],
  [33 * 60_000, '35 min'],
  [142.4 * 60_000, '2.5 hours'],
  [600 * 60_000, '10 hours'],
])('tells an estimate of %i ms no more exactly than it is', (milliseconds, text) => {
  expect(roughly(milliseconds)).toBe(text);
});

it('never tells of more objects than there are, nor of being done', () => {
  const meter = makeMeter(1, () => 0);
  const seen = Array.from({ length: 10 }, () => meter.take('  CC      a.o'));
  expect(seen.at(-1)?.text).toMatch(/^10 of about 10 objects/);
  expect(seen.at(-1)?.fraction).toBeLessThan(1);
});

it('tells how long a make may be from what a processor is worth, and how many there are', () => {
  const one = estimateMake(1000, 200, 1);
  const two = estimateMake(1000, 200, 2);
  expect(one.objects).toBeGreaterThan(1000);
  expect(two.milliseconds).toBe((one.milliseconds ?? 0) / 2);
  expect(estimateMake(1000, 400, 2).milliseconds).toBe(one.milliseconds);
  expect(estimateMake(1000, 200, 1, true).milliseconds).toBeLessThan(one.milliseconds ?? 0);
});

it('is right about the emulated build that it was measured at, but for a tenth', () => {
  // It took 3363 s.
  const { milliseconds = 0 } = estimateMake(833, 1680, 2, true);
  expect(Math.abs(milliseconds / 3_363_000 - 1)).toBeLessThan(0.1);
});

it('tells no time where none was measured', () => {
  expect(estimateMake(1000, 0, 2).milliseconds).toBeUndefined();
});
