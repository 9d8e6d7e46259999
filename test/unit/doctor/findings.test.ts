import { describe, expect, it } from 'vitest';
import { judgeSpace, longestName } from '../../../src/doctor/checks/storage.ts';
import { freeRange, hasRange } from '../../../src/doctor/checks/unprivileged.ts';
import { resolvePaths } from '../../../src/host/paths.ts';

const GB = 10 ** 9;

describe('free space', () => {
  it.each([
    [25 * GB, 'ok', undefined],
    [12 * GB, 'weak', /kernel-build wants 20 GB/],
    [6 * GB, 'weak', /combined wants 10 GB/],
    [3 * GB, 'weak', /too little/],
    [GB / 2, 'missing', /too little/],
  ])('%d bytes: %s', (free, status, note) => {
    const finding = judgeSpace(free, '/home');
    expect(finding.status).toBe(status);
    if (note) expect(finding.note).toMatch(note);
  });
});

describe('the state home', () => {
  it('leaves room for every name, for some, or for none', () => {
    const longest = (home: string) => longestName(resolvePaths({ ZFSDEV_HOME: home }));
    expect(longest('/h')).toBe(40);
    expect(longest(`/${'h'.repeat(49)}`)).toBeGreaterThan(0);
    expect(longest(`/${'h'.repeat(49)}`)).toBeLessThan(40);
    expect(longest(`/${'h'.repeat(120)}`)).toBe(0);
  });
});

describe('subordinate ids', () => {
  const user = { uid: 1000, name: 'ada' };

  it.each([
    ['ada:100000:65536\n', true],
    ['1000:100000:65536\n', true],
    ['ada:100000:1000\n', false],
    ['bob:100000:65536\n', false],
    ['', false],
  ])('%j: %s', (text, expected) => {
    expect(hasRange(text, user)).toBe(expected);
  });

  it('are given out behind all others', () => {
    expect(freeRange('')).toBe('100000-165535');
    expect(freeRange('bob:100000:65536\neve:165536:65536\n')).toBe('231072-296607');
  });
});
