import { expect, it } from 'vitest';
import { freeTag, parseSnapshotName } from '../../../src/core/snapshot-name.ts';
import type { Failure } from '../../../src/core/errors.ts';

it.each([
  'is',
  'of',
  'before upgrade',
  'ünïcødé 日本',
  '--',
  'a/b',
  '007',
  '20240101',
  "it's",
  'x'.repeat(255),
  'é'.repeat(127),
])('takes %j as it is', (name) => {
  expect(parseSnapshotName(name)).toBe(name);
});

it.each([
  ['', 'it is empty'],
  ['x'.repeat(256), 'has 256 bytes'],
  ['é'.repeat(128), 'has 256 bytes'],
  ['a\nb', "can't be printed"],
  ['a\0b', "can't be printed"],
  ['\ud800', "can't be printed"],
  [' a', 'begins or ends with a space'],
  ['1', 'number'],
  ['4096', 'number'],
  ['zfsdev: before the load', 'zfsdev takes one of this name itself'],
])('refuses %j: it %s', (name, why) => {
  expect(() => parseSnapshotName(name)).toThrow(why);
  try {
    parseSnapshotName(name);
  } catch (error) {
    expect((error as Failure).exitCode).toBe(2);
  }
});

it.each([
  ['one', [], 'one.other'],
  ['one', ['one.other', 'one.other2'], 'one.other3'],
  ['x'.repeat(255), [], `${'x'.repeat(249)}.other`],
  // Whole characters, of at most 255 bytes together.
  [`a${'é'.repeat(127)}`, [], `a${'é'.repeat(124)}.other`],
])('has a tag for another one called %j beside %j', (name, taken, tag) => {
  expect(freeTag(name, new Set(taken))).toBe(tag);
  expect(parseSnapshotName(tag)).toBe(tag);
});
