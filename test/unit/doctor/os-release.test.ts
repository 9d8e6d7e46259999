import { describe, expect, it } from 'vitest';
import { isDebianLike, parseOsRelease } from '../../../src/doctor/os-release.ts';

const ubuntu = `PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
ID=ubuntu
ID_LIKE=debian
`;

describe('parseOsRelease', () => {
  it('reads quoted and bare values in any order', () => {
    expect(parseOsRelease(ubuntu)).toEqual({ id: 'ubuntu', like: ['debian'], name: 'Ubuntu 24.04.1 LTS' });
  });

  it('undoes the escapes of double quotes and takes single quotes as they are', () => {
    expect(parseOsRelease(`NAME="a \\"b\\" \\$c"\nID='x'\n`)).toEqual({
      id: 'x',
      like: [],
      name: 'a "b" $c',
    });
  });

  it('gives empty texts for what is missing, comments and broken lines included', () => {
    expect(parseOsRelease('# nothing\nbroken\n')).toEqual({ id: '', like: [], name: '' });
  });
});

describe('isDebianLike', () => {
  it.each([
    ['ID=debian', true],
    ['ID=ubuntu\nID_LIKE=debian', true],
    ['ID=linuxmint\nID_LIKE="ubuntu debian"', true],
    ['ID=fedora', false],
    ['ID=almalinux\nID_LIKE="rhel centos fedora"', false],
    ['', false],
  ])('%j: %s', (text, expected) => {
    expect(isDebianLike(parseOsRelease(text))).toBe(expected);
  });
});
