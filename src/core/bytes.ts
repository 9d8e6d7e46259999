import { Failure } from './errors.ts';

declare const brand: unique symbol;

/** A size in bytes: a safe, non-negative integer. */
export type Bytes = number & { readonly [brand]: 'Bytes' };

export const KiB = 2 ** 10;
export const MiB = 2 ** 20;
export const GiB = 2 ** 30;

const units: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['B', 1],
  // A bare letter follows qemu-img: powers of 1024.
  ...['K', 'M', 'G', 'T'].flatMap((letter, i): [string, number][] => [
    [letter, 1024 ** (i + 1)],
    [`${letter}IB`, 1024 ** (i + 1)],
    [`${letter}B`, 1000 ** (i + 1)],
  ]),
]);

/** Brands a number that is already known to be a size; a bug (not a user's mistake) if it isn't one. */
export function bytes(value: number): Bytes {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`not a size in bytes: ${value}`);
  return value as Bytes;
}

/**
 * Reads a size as people write it: `4GiB` is 4 x 2^30, `4GB` is 4 x 10^9, `4G` follows qemu-img (2^30), a bare
 * number is bytes. Fractions are allowed as long as the result is a whole number of bytes.
 * @throws Failure `usage` that says what is wrong and what a size looks like.
 */
export function parseBytes(text: string): Bytes {
  const match = /^\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const form = 'write a number and a unit, for instance 512MiB, 4GiB or 10GB';
  if (!match?.[1]) throw new Failure('usage', `"${text}" is not a size`, { hint: form });
  if (match[1].startsWith('-')) throw new Failure('usage', `"${text}" is a negative size`, { hint: form });
  const factor = units.get((match[2] ?? '').toUpperCase());
  if (factor === undefined) {
    throw new Failure('usage', `"${text}" has an unknown unit "${match[2]}"`, {
      hint: 'units are KiB, MiB, GiB, TiB (powers of 1024) and KB, MB, GB, TB (powers of 1000)',
    });
  }
  const value = Number(match[1]) * factor;
  if (!Number.isSafeInteger(value)) {
    throw new Failure('usage', `"${text}" is not a whole number of bytes`, { hint: form });
  }
  return bytes(value);
}

/** A size for people: powers of 1024, three significant digits at most (`3.2 GiB`, `670 MiB`, `0 B`). */
export function formatBytes(size: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Math.abs(size);
  let unit = 0;
  while (value >= 1023.5 && unit < names.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  const text = value.toFixed(digits).replace(/\.0+$|(\.\d*[1-9])0+$/, '$1');
  return `${size < 0 ? '-' : ''}${text} ${names[unit] ?? 'B'}`;
}

/** A size in the exact form that templates and Lima use: the largest binary unit that divides it (`4GiB`). */
export function exactBytes(size: Bytes): string {
  if (size === 0) return '0B';
  for (const [name, factor] of [
    ['GiB', GiB],
    ['MiB', MiB],
    ['KiB', KiB],
  ] as const) {
    if (size % factor === 0) return `${size / factor}${name}`;
  }
  return `${size}B`;
}
