import { expect, test } from 'vitest';
import { bytes, exactBytes, formatBytes, GiB, MiB, parseBytes } from '../../../src/core/bytes.ts';
import { Failure } from '../../../src/core/errors.ts';

test.each([
  ['4GiB', 4 * GiB],
  ['4GB', 4e9],
  ['4G', 4 * GiB],
  ['4g', 4 * GiB],
  ['1.5 GiB', 1.5 * GiB],
  [' 512MiB ', 512 * MiB],
  ['100kB', 100_000],
  ['1T', 1024 * GiB],
  ['7', 7],
  ['7B', 7],
  ['0', 0],
])('%j is %d bytes', (text, size) => {
  expect(parseBytes(text)).toBe(size);
});

test.each([
  ['', 'is not a size'],
  ['GiB', 'is not a size'],
  ['1e3', 'is not a size'],
  ['4 G iB', 'is not a size'],
  ['-1GiB', 'is a negative size'],
  ['4 elephants', 'unknown unit "elephants"'],
  ['0.3B', 'not a whole number of bytes'],
  ['99999999T', 'not a whole number of bytes'],
])('%j is refused', (text, why) => {
  expect(() => parseBytes(text)).toThrow(why);
  expect(() => parseBytes(text)).toThrow(Failure);
});

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1 KiB'],
  [1536, '1.5 KiB'],
  [670 * MiB, '670 MiB'],
  [3.2 * GiB, '3.2 GiB'],
  [1024 * MiB - 1, '1 GiB'],
  [100 * GiB, '100 GiB'],
  [-2 * GiB, '-2 GiB'],
  [5000 * 1024 * GiB, '5000 TiB'],
])('%d is shown as %s', (size, text) => {
  expect(formatBytes(size)).toBe(text);
});

test.each([4 * GiB, 1.5 * GiB, 200 * MiB, 1025, 0, 3 * 1024])('the exact form of %d reads back', (size) => {
  expect(parseBytes(exactBytes(bytes(size)))).toBe(size);
});

test.each([-1, 0.5, Number.NaN, 2 ** 53])('%d as a size is a bug', (value) => {
  expect(() => bytes(value)).toThrow(RangeError);
});
