import { describe, expect, it } from 'vitest';
import { differenceOf } from '../../../src/storage/difference.ts';
import { thinned } from '../../../src/storage/history-trim.ts';
import type { Sample } from '../../../src/storage/history.ts';
import { growthOf, seriesOf } from '../../../src/storage/series.ts';
import type { MachineUsage, Usage } from '../../../src/storage/usage.ts';

function sample(at: number, sizes: Record<string, number>, scope: Sample['scope'] = 'own'): Sample {
  return {
    at,
    scope,
    machines: Object.entries(sizes).map(([name, actual]) => ({
      name,
      driver: /^(lima|foreign)/.test(name) ? 'lima' : 'qemu',
      ...(name.startsWith('foreign') ? { foreign: true } : {}),
      actual,
      virtual: 100,
    })),
    shared: [{ what: 'image', key: 'f00', actual: 5 }],
    filesystems: [],
    total: 50,
  };
}

describe('seriesOf', () => {
  const sizes = (samples: readonly Sample[], name: string) =>
    seriesOf(samples)
      .find((each) => each.name === name)
      ?.points.map(({ size }) => size);

  it('has a gap where a machine was looked for and not there, and is gone at the end', () => {
    const samples = [sample(1, { a: 1 }), sample(2, {}), sample(3, {}), sample(4, { a: 4 }), sample(5, {})];
    expect(sizes(samples, 'a')).toEqual([1, undefined, 4, undefined]);
    expect(seriesOf(samples)[0]?.gone).toBe(true);
    expect(seriesOf(samples.slice(0, 4))[0]?.gone).toBe(false);
  });

  it('takes no machine for gone that was not looked for', () => {
    const samples = [
      sample(1, { a: 1, 'foreign-x': 9 }, 'all'),
      sample(2, { a: 2 }),
      sample(3, { b: 3 }, 'some'),
      sample(4, { a: 4, 'foreign-x': 8 }, 'all'),
    ];
    expect(sizes(samples, 'a')).toEqual([1, 2, 4]);
    expect(sizes(samples, 'foreign-x')).toEqual([9, 8]);
    expect(sizes(samples, 'all')).toEqual([50, 50, 50]);
    expect(sizes(samples, 'shared')).toEqual([5, 5, 5]);
  });

  it("has one of zfsdev's own gone at once, whichever driver ran it, and another's when it was looked for", () => {
    const samples = [sample(1, { 'lima-a': 1, 'foreign-x': 9 }, 'all'), sample(2, {})];
    expect(sizes(samples, 'lima-a')).toEqual([1, undefined]);
    expect(sizes(samples, 'foreign-x')).toEqual([9]);
    expect(sizes([...samples, sample(3, {}, 'all')], 'foreign-x')).toEqual([9, undefined]);
  });

  it("keeps one of zfsdev's apart from another's of the same name", () => {
    const own = sample(1, { 'lima-a': 1 }, 'all');
    const twins = own.machines.flatMap((each) => [each, { ...each, foreign: true as const, actual: 7 }]);
    const points = seriesOf([{ ...own, machines: twins }]).filter(({ kind }) => kind === 'machine');
    expect(points.map(({ points: [first] }) => first?.size)).toEqual([1, 7]);
  });

  it('tells first, last, least, most and growth', () => {
    const [a] = seriesOf([
      sample(1, { a: 3 }),
      sample(2, { a: 1 }),
      sample(3, { a: 9 }),
      sample(4, { a: 7 }),
    ]);
    expect(a && growthOf(a)).toEqual({ first: 3, last: 7, min: 1, max: 9, change: 4 });
  });
});

describe('thinned', () => {
  const hour = 3_600_000;
  const now = 100 * 24 * hour;

  it('keeps the last of each minute of a day, and all of the last two hours', () => {
    const recent = [10, 20, 30].map((ms) => sample(now - hour + ms, { a: ms }));
    const older = [0, 1000, 59_000, 60_000].map((ms) => sample(now - 5 * hour + ms, { a: ms }));
    expect(thinned([...older, ...recent], now)).toEqual([older[2], older[3], ...recent]);
  });

  it('keeps looks at different machines apart', () => {
    const at = now - 50 * 24 * hour;
    const kept = [
      sample(at + 1, { a: 1 }, 'some'),
      sample(at + 2, { b: 1 }, 'some'),
      sample(at + 3, { a: 1 }),
    ];
    expect(thinned([sample(at, { a: 0 }, 'some'), ...kept], now)).toEqual(kept);
  });
});

describe('differenceOf', () => {
  const machine = (name: string, actual: number, other = 0): MachineUsage => ({
    name,
    driver: 'lima',
    status: 'stopped',
    disks: [{ path: `/${name}`, virtual: 0, actual, snapshots: 0, heldBySnapshots: 0 }],
    other,
    reclaim: {},
  });
  const usage = (free: number, ...machines: MachineUsage[]): Usage => ({
    machines,
    shared: [],
    filesystems: [{ device: 1, path: '/', free, total: 100 }],
  });

  it("takes one of zfsdev's and another's of the same name for two", () => {
    const [own, theirs] = [machine('a', 10), { ...machine('a', 50), foreign: true as const }];
    const { machines } = differenceOf(usage(50, own, theirs), usage(50, own, theirs));
    expect(machines.map(({ before, after }) => [before, after])).toEqual([
      [10, 10],
      [50, 50],
    ]);
  });

  it('tells what grew, came and went', () => {
    const { machines, filesystems, total } = differenceOf(
      usage(50, machine('a', 10, 1), machine('b', 5)),
      usage(40, machine('a', 12, 2), machine('c', 7)),
    );
    expect(machines).toMatchObject([
      { name: 'a', before: 11, after: 14, change: 3, disks: [{ change: 2 }], other: { change: 1 } },
      { name: 'c', before: undefined, after: 7, change: 7 },
      { name: 'b', before: 5, after: undefined, change: -5, disks: [{ path: '/b', change: -5 }] },
    ]);
    expect(filesystems).toEqual([{ path: '/', freeBefore: 50, freeAfter: 40 }]);
    expect(total).toEqual({ before: 16, after: 21, change: 5 });
  });
});
