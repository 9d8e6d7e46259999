import type { HostFilesystem } from '../host/free-space.ts';
import { totalOf, type MachineUsage, type Usage } from './usage.ts';

/** One thing before and after, in bytes; undefined where it wasn't there. */
export interface Change {
  readonly before: number | undefined;
  readonly after: number | undefined;
  /** After less before, where nothing counts as 0. */
  readonly change: number;
}

export interface DiskChange extends Change {
  readonly path: string;
}

export interface MachineChange extends Change {
  readonly name: string;
  readonly driver: 'qemu' | 'lima';
  readonly disks: readonly DiskChange[];
  /** All else in its folder: initrd, logs, memory. */
  readonly other: Change;
}

export interface SharedChange extends Change {
  readonly what: string;
  readonly key: string;
}

export interface FilesystemChange {
  readonly path: string;
  readonly freeBefore: number;
  readonly freeAfter: number;
}

/** What came between two looks. Everything is listed, also what stayed as it was. */
export interface UsageDifference {
  readonly machines: readonly MachineChange[];
  readonly shared: readonly SharedChange[];
  readonly filesystems: readonly FilesystemChange[];
  readonly total: Change;
}

export function differenceOf(before: Usage, after: Usage): UsageDifference {
  return {
    machines: pairs(before.machines, after.machines, machineKey).map(([was, is, some]) => {
      const disks = pairs(was?.disks ?? [], is?.disks ?? [], ({ path }) => path).map(
        ([old, now, { path }]) => ({
          path,
          ...change(old?.actual, now?.actual),
        }),
      );
      const whole = (machine: typeof some | undefined): number | undefined =>
        machine && machine.other + machine.disks.reduce((sum, { actual }) => sum + actual, 0);
      const { name, driver } = some;
      return {
        name,
        driver,
        disks,
        other: change(was?.other, is?.other),
        ...change(whole(was), whole(is)),
      };
    }),
    shared: pairs(before.shared, after.shared, ({ what, key }) => `${what} ${key}`).map(
      ([was, is, { what, key }]) => ({ what, key, ...change(was?.actual, is?.actual) }),
    ),
    filesystems: pairs(before.filesystems, after.filesystems, ({ device }) => String(device)).flatMap(
      ([was, is]) => (was && is ? [freeOf(was, is)] : []),
    ),
    total: change(totalOf(before), totalOf(after)),
  };
}

/** Lima may have one of zfsdev's and one of the user's own of the same name. */
function machineKey({ driver, foreign, name }: MachineUsage): string {
  return `${foreign ? 'foreign' : driver} ${name}`;
}

function freeOf({ path, free }: HostFilesystem, after: HostFilesystem): FilesystemChange {
  return { path, freeBefore: free, freeAfter: after.free };
}

function change(before: number | undefined, after: number | undefined): Change {
  return { before, after, change: (after ?? 0) - (before ?? 0) };
}

/** What belongs together in two lists, in the order of the second, and what only the first has behind it. */
function pairs<T>(
  before: readonly T[],
  after: readonly T[],
  key: (each: T) => string,
): (readonly [T | undefined, T | undefined, T])[] {
  const old = new Map(before.map((each) => [key(each), each]));
  const now = new Set(after.map(key));
  return [
    ...after.map((each) => [old.get(key(each)), each, each] as const),
    ...before.filter((each) => !now.has(key(each))).map((each) => [each, undefined, each] as const),
  ];
}
