import { expect, it } from 'vitest';
import { readKernelLog } from '../../../bench/kernel-log.ts';

const log = `--- preflight (2026-01-01T00:00:00.000Z)
@ jobs 2
--- source (2026-01-01T00:00:01.000Z)
--- config (2026-01-01T00:00:11.000Z)
@ cost 500
@ options 10
--- make (2026-01-01T00:00:15.000Z)
  CC      init/main.o
@ cpu 20000
  AS      arch/x86/entry/entry.o
  HOSTCC  scripts/basic/fixdep
--- modules (2026-01-01T00:00:25.500Z)
--- zfs (2026-01-01T00:00:26.000Z)
  CC      elsewhere.o
--- initrd (2026-01-01T00:00:30.000Z)
`;

it('tells how long the phases took that are done by hand as well, and the make among them', () => {
  const { phases, make, zfs } = readKernelLog(log);
  expect({ phases, make, zfs }).toEqual({ phases: 25, make: 10.5, zfs: 4 });
});

it('tells what an object of the make cost a processor', () => {
  expect(readKernelLog(log).cost()).toMatchObject({
    objects: 2,
    estimated: 18,
    perOption: 0.2,
    perObject: 10,
    ofMeasure: 20,
    fitted: expect.closeTo(20 / (18 * 0.5), 5) as number,
  });
});

it('does not take the log of a build that was cut off', () => {
  expect(() => readKernelLog(log.slice(0, log.indexOf('--- zfs')))).toThrow('does not tell of zfs');
});
