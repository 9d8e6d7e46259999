import { expect, test } from 'vitest';
import { machineTable, usageText } from '../../../src/commands/usage-report.ts';
import type { MachineUsage } from '../../../src/storage/usage.ts';

const [MiB, GiB] = [2 ** 20, 2 ** 30];

function machine(name: string, actual: number, more: Partial<MachineUsage> = {}): MachineUsage {
  const disk = { path: `/x/${name}/disk.qcow2`, kind: 'qcow2' as const, virtual: 15 * GiB };
  return {
    name,
    driver: 'qemu',
    status: 'stopped',
    disks: [{ ...disk, actual, snapshots: 0, heldBySnapshots: 0 }],
    other: 0,
    reclaim: {},
    ...more,
  };
}

const guest = {
  rootTotal: 4 * GiB,
  rootUsed: 500 * MiB,
  pools: [],
  poolFiles: 0,
  cleanable: { packages: 0, source: 0, logs: 0 },
};
const rich = [
  machine('zfs-test', 163 * MiB, {
    status: 'running',
    guest,
    reclaim: { trim: 131 * MiB, clean: 50.1 * MiB },
  }),
  machine('kernel-build', 11.2 * GiB, { reclaim: { compact: 6.12 * GiB } }),
];
const look = (width: number) => ({ width, paint: (_: string, text: string) => text });

test.each([60, 80, 120, 200])('a table keeps to %i columns, the bar in it', (width) => {
  const lines = machineTable(look(width), rich).split('\n');
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
  expect(lines[1]).toContain('▏·····');
  if (width >= 80) expect(lines[0]).toContain('COMPACT');
});

test('the bar takes the room that is there, and columns that say nothing none', () => {
  expect(machineTable(look(80), [machine('a', GiB)])).toBe(
    ['NAME  STATUS   VIRTUAL  ACTUAL', `a     stopped   15 GiB   1 GiB  █▏${'·'.repeat(14)}`].join('\n'),
  );
});

test('an estimate that is within its error is not told', () => {
  expect(machineTable(look(80), [machine('a', GiB, { reclaim: { compact: MiB / 2 } })])).not.toContain('~');
});

test('problems stand below, and a machine without disks has a row', () => {
  const broken = machine('gone', 0, { status: 'broken', disks: [], problem: 'its disk is missing' });
  const text = usageText(look(80), { machines: [broken], shared: [], filesystems: [] });
  expect(text).toMatch(/^gone +broken +\? +\?$/m);
  expect(text).toContain('\ngone: its disk is missing\n');
});
