import { expect, it } from 'vitest';
import { makeMeter } from '../../../src/kernel/progress.ts';

it('counts the objects of a make, and tells their rate', () => {
  let now = 0;
  const meter = makeMeter(100, () => now);
  expect(meter.take('make: Entering directory')).toBeUndefined();
  expect(meter.take('  HOSTCC  scripts/basic/fixdep')).toBeUndefined();
  now = 1000;
  meter.take('  CC      init/main.o');
  expect(meter.take('  CC [M]  fs/ext4/super.o')).toMatchObject({
    text: expect.stringMatching(/^2 of about \d+ objects, 2\.0\/s$/) as string,
  });
});

it('never tells of more objects than there are, nor of being done', () => {
  const meter = makeMeter(1, () => 0);
  const seen = Array.from({ length: 10 }, () => meter.take('  CC      a.o'));
  expect(seen.at(-1)?.text).toMatch(/^10 of about 10 objects/);
  expect(seen.at(-1)?.fraction).toBeLessThan(1);
});
