import type { Sample } from './history.ts';

/** How one thing grew. */
export interface Series {
  /** `machine` is one machine's disks; `shared` all that machines stand on; `all` what zfsdev takes as a whole. */
  readonly kind: 'machine' | 'shared' | 'all';
  readonly name: string;
  readonly driver?: 'qemu' | 'lima';
  /** Oldest first. A size in bytes, or undefined where it was looked for and wasn't there. */
  readonly points: readonly Point[];
  /** Not there when last looked for. */
  readonly gone: boolean;
}

export interface Point {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly size: number | undefined;
}

/** What became of a series over the time shown, in bytes. */
export interface Growth {
  readonly first: number;
  readonly last: number;
  readonly min: number;
  readonly max: number;
  /** Last less first. */
  readonly change: number;
}

interface MachineSeries {
  readonly name: string;
  readonly driver: 'qemu' | 'lima';
  readonly foreign: boolean;
  readonly points: Point[];
}

/** Samples as series: each machine by its name, then all that is shared, then everything of zfsdev's own. */
export function seriesOf(samples: readonly Sample[]): Series[] {
  const machines = new Map<string, MachineSeries>();
  const [shared, all]: [Point[], Point[]] = [[], []];
  for (const sample of samples) {
    const { at, scope } = sample;
    const present = new Set<string>();
    for (const { name, driver, foreign = false, actual } of sample.machines) {
      const key = `${foreign ? 'foreign' : driver} ${name}`;
      present.add(key);
      const known = machines.get(key) ?? { name, driver, foreign, points: [] };
      machines.set(key, known);
      known.points.push({ at, size: actual });
    }
    if (scope === 'some') continue;
    for (const [key, { foreign, points }] of machines) {
      const lookedFor = !foreign || scope === 'all';
      if (lookedFor && !present.has(key) && points.at(-1)?.size !== undefined)
        points.push({ at, size: undefined });
    }
    // What only Lima's stand on is seen in some looks and not in others, which would be jumps that nothing made.
    const own = sample.shared.filter(({ what }) => what !== 'base');
    shared.push({ at, size: own.reduce((sum, { actual }) => sum + actual, 0) });
    all.push({ at, size: sample.total });
  }
  return [
    ...[...machines.values()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, driver, points }) => series('machine', { name, driver, points })),
    ...(shared.length > 0 ? [series('shared', { name: 'shared', points: shared })] : []),
    ...(all.length > 0 ? [series('all', { name: 'all', points: all })] : []),
  ];
}

function series(
  kind: Series['kind'],
  of: { name: string; driver?: 'qemu' | 'lima'; points: readonly Point[] },
): Series {
  return { kind, ...of, gone: of.points.at(-1)?.size === undefined };
}

/** @throws RangeError for a series without any size, which `seriesOf` never makes. */
export function growthOf({ points }: Series): Growth {
  const sizes = points.map(({ size }) => size).filter((size) => size !== undefined);
  const [first, last] = [sizes[0], sizes.at(-1)];
  if (first === undefined || last === undefined) throw new RangeError('a series without a size');
  const [min, max] = [Math.min(...sizes), Math.max(...sizes)];
  return { first, last, min, max, change: last - first };
}
