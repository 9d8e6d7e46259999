import { describe, expect, it } from 'vitest';
import { isUninterruptible } from '../../../src/host/process-activity.ts';

describe('a thread that waits for the disk', () => {
  it.each([
    ['71 (qemu-system-x86) D 1 71 71 0 -1 4194560', true],
    ['71 (qemu-system-x86) S 1 71 71 0 -1 4194560', false],
    ['71 (a) D (b) R 1 71 71 0 -1 4194560', false],
    ['', false],
  ])('is told by its state: %j', (text, waits) => {
    expect(isUninterruptible(text)).toBe(waits);
  });
});
