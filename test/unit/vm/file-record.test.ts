import { expect, test } from 'vitest';
import { without } from '../../../src/vm/file-record.ts';

test.each<[string, [number, number][], [number, number][], [number, number][]]>([
  ['nothing is taken away', [[0, 10]], [], [[0, 10]]],
  [
    'all is',
    [
      [2, 3],
      [8, 1],
    ],
    [[0, 20]],
    [],
  ],
  [
    'a part in the middle',
    [[0, 10]],
    [[3, 2]],
    [
      [0, 3],
      [5, 5],
    ],
  ],
  [
    'parts that reach over both ends',
    [[10, 10]],
    [
      [5, 7],
      [18, 9],
    ],
    [[12, 6]],
  ],
  [
    'one that spans two',
    [
      [0, 5],
      [10, 5],
    ],
    [[3, 9]],
    [
      [0, 3],
      [12, 3],
    ],
  ],
])('%s', (_, extents, others, left) => {
  expect(without(extents, others)).toEqual(left);
});
