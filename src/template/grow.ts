import { bytes, GiB, MiB, parseBytes, type Bytes } from '../core/bytes.ts';
import { isSizeProperty } from './properties.ts';
import { partNames, type Template } from './schema.ts';
import type { WorstCasePart } from './spec.ts';
import { zfsSize } from './values.ts';

/** What of a template changes with the size of its pool's files. */
export interface Sizing {
  readonly disk: Bytes;
  readonly pool: Template['pool'];
  readonly worstCase: readonly WorstCasePart[];
}

/** The sizes as the template's file has them; the pool's part is its files, unless the file says more. */
export function sizingOf({ disk, pool, worstCase }: Template): Sizing {
  const files = pool === undefined ? undefined : filesOf(pool);
  const sizes = { ...(files === undefined ? {} : { pool: files }), ...worstCase };
  const parts = partNames.flatMap((part) => {
    const size = sizes[part];
    return size === undefined ? [] : [{ part, size }];
  });
  return { disk, pool, worstCase: parts };
}

/** All files of a pool, written full. */
export function filesOf(pool: NonNullable<Template['pool']>): Bytes {
  return bytes(pool.files * pool.fileSize);
}

/**
 * Gives the pool's files another size. The pool's part of the worst case changes by what the files change; the disk
 * grows by as much, up to the next whole GiB, and never shrinks. Quotas and reservations keep their share of the pool,
 * so that a small pool is still kept from running full and a larger one can be used.
 */
export function resizePool(sizing: Sizing, fileSize: Bytes): Sizing {
  const { pool } = sizing;
  if (pool === undefined) return sizing;
  const resized = { ...pool, fileSize };
  const growth = filesOf(resized) - filesOf(pool);
  const properties = Object.entries(pool.properties).map(([name, value]): [string, string] => {
    if (!isSizeProperty(name) || value === 'none') return [name, value];
    return [name, scaled(parseBytes(value), pool.fileSize, fileSize)];
  });
  const worstCase = sizing.worstCase.map(({ part, size }) => ({
    part,
    // A part that is too small already stays so: it is reported, not hidden.
    size: part === 'pool' ? bytes(Math.max(0, size + growth)) : size,
  }));
  const disk = growth > 0 ? wholeGiB(sizing.disk + growth) : sizing.disk;
  return { disk, pool: { ...resized, properties: Object.fromEntries(properties) }, worstCase };
}

/** A size that keeps its share of the pool's files, in whole MiB where it is at least one. */
function scaled(size: Bytes, from: Bytes, to: Bytes): string {
  const exact = (size / from) * to;
  return zfsSize(bytes(exact >= MiB ? Math.floor(exact / MiB) * MiB : Math.floor(exact)));
}

/** The next whole GiB. */
export function wholeGiB(size: number): Bytes {
  return bytes(Math.ceil(size / GiB) * GiB);
}
