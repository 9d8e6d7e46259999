import { expect, it } from 'vitest';
import { GiB } from '../../../src/core/bytes.ts';
import { freeMemory } from '../../../src/host/memory.ts';

it.each([
  ['what the host has free', 0, 6 * GiB],
  ['what the host has free, where a container may have more', 2 ** 63, 6 * GiB],
  ['what a container may have, where that is less', 2 * GiB, 2 * GiB],
])('free memory is %s', (_, limit, expected) => {
  expect(freeMemory('linux', 6 * GiB, limit)).toBe(expected);
});
