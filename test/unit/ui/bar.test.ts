import { expect, test } from 'vitest';
import { bar } from '../../../src/ui/bar.ts';

test.each([
  [0, 8, '········'],
  [1, 1_000_000, '▏·······'],
  [4, 8, '████····'],
  [5, 16, '██▌·····'],
  [8, 8, '████████'],
  [9, 8, '████████'],
])('%i of %i', (part, whole, drawn) => {
  expect(bar(part, whole, 8)).toBe(drawn);
});

test('of nothing is empty', () => {
  expect(bar(0, 0, 3)).toBe('   ');
});
