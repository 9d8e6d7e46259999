import { describe, expect, test } from 'vitest';
import { checkMirror, debianMirror, osRelease } from '../../../src/image/mirror.ts';

describe('debianMirror', () => {
  // Lines of apt 2.6 (Debian 12) with this room's --format; the last field is empty before the first apt-get update.
  const own = 'http://mirror.example/debian/|bookworm|main|Debian';
  const security = 'http://mirror.example/debian-security/|bookworm-security|main|Debian';
  const vendor = 'https://packages.example.com/debian/12/prod/|bookworm|main|example bookworm';

  test.each([
    ['the own archive, not the security one', [security, own], 'http://mirror.example/debian'],
    ['not a vendor that uses the same suite', [vendor, own], 'http://mirror.example/debian'],
    [
      'by its address when the origin is unknown',
      ['http://m.example/debian|bookworm|main|'],
      'http://m.example/debian',
    ],
    ['no vendor when the origin is unknown', ['https://v.example/debian/12/prod|bookworm|main|'], undefined],
    ['no other release', [own.replace('bookworm', 'bookworm-updates')], undefined],
    ['no mirror list or local folder', ['mirror+file:/etc/apt/mirrors|bookworm|main|Debian'], undefined],
    ['nothing from nothing', [''], undefined],
  ])('%s', (_, lines, expected) => {
    expect(debianMirror(lines.join('\n'), 'bookworm')).toBe(expected);
  });
});

test('osRelease reads with and without quotes', () => {
  const text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n# no\n';
  expect(Object.fromEntries(osRelease(text))).toMatchObject({ ID: 'debian', VERSION_CODENAME: 'bookworm' });
});

describe('checkMirror', () => {
  test.each(['http://mirror.example/debian', 'https://u:p@m.example:8080/d%20x', 'file:///srv/debian'])(
    'accepts %s',
    (text) => expect(checkMirror(`${text}/`)).toBe(text),
  );
  test.each(['', 'mirror.example/debian', 'http://a b', "http://x/'$(id)", 'ftp://x/debian'])(
    'refuses "%s"',
    (text) => expect(() => checkMirror(text)).toThrow(/is not the address/),
  );
});
