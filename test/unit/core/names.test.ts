import { expect, test } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { nearest, parseName } from '../../../src/core/names.ts';

test.each(['a', '7', 'zfs-test', 'a--b', 'x'.repeat(40)])('%s is a name', (name) => {
  expect(parseName(name)).toBe(name);
});

test.each([
  '',
  '-a',
  'a-',
  'A',
  'a b',
  'a/b',
  '..',
  '.',
  'a.b',
  'ä',
  'a\n',
  'x'.repeat(41),
  'x'.repeat(64),
  '-',
])('%j is none', (name) => {
  expect(() => parseName(name)).toThrow(Failure);
});

function hintFor(name: string): string | undefined {
  try {
    parseName(name);
  } catch (error) {
    return error instanceof Failure ? error.hint : undefined;
  }
  return undefined;
}

test('a name that would do is offered', () => {
  expect(hintFor('My VM')).toContain('for instance "my-vm"');
  expect(hintFor('../../etc')).toContain('for instance "etc"');
  expect(hintFor('..')).not.toContain('for instance');
  expect(hintFor(`${'x'.repeat(39)}--y`)).toContain(`for instance "${'x'.repeat(39)}"`);
});

test.each([
  ['zfs-tets', 'zfs-test'],
  ['zfs', 'zfs-test'],
  ['kernel', 'kernel-build'],
  ['quite-different', undefined],
])('%s is near to %s', (typed, near) => {
  expect(nearest(typed, ['kernel-build', 'zfs-test'])).toBe(near);
});

test('nothing is near to nothing', () => {
  expect(nearest('a', [])).toBeUndefined();
});
