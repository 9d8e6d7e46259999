import { expect, it } from 'vitest';
import { GiB } from '../../../src/core/bytes.ts';
import { syncPatience } from '../../../src/storage/snapshot-create.ts';

it('a guest is given time for all of its memory at a MiB a second, and for an hour at least', () => {
  expect(syncPatience(GiB)).toBe(3_600_000);
  expect(syncPatience(8 * GiB)).toBe(8_192_000);
});
