import { parseBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { nearest } from '../core/names.ts';
import { readPropertyValue, zfsSize } from './values.ts';

/** Properties whose value is a size within the pool: they are checked against it, and scale with it. */
export const sizeProperties = ['quota', 'refquota', 'reservation', 'refreservation'] as const;

/**
 * File system properties of OpenZFS 2.2 to 2.4 that can be set when a pool is made. Encryption is left out: a key
 * would have to be typed at every boot.
 */
const known = [
  ...sizeProperties,
  ...['aclinherit', 'aclmode', 'acltype', 'atime', 'canmount', 'casesensitivity', 'checksum', 'compression'],
  ...['copies', 'dedup', 'devices', 'direct', 'dnodesize', 'exec', 'filesystem_limit', 'logbias', 'longname'],
  ...[
    'mountpoint',
    'nbmand',
    'normalization',
    'overlay',
    'prefetch',
    'primarycache',
    'readonly',
    'recordsize',
  ],
  ...[
    'redundant_metadata',
    'relatime',
    'secondarycache',
    'setuid',
    'sharenfs',
    'sharesmb',
    'snapdev',
    'snapdir',
  ],
  ...[
    'snapshot_limit',
    'special_small_blocks',
    'sync',
    'utf8only',
    'version',
    'volmode',
    'vscan',
    'xattr',
    'zoned',
  ],
];

/**
 * Checks the name of a file system property: one of ZFS's own, or a user's property, which has a colon.
 * @throws Failure `usage` with the nearest name.
 */
export function checkPropertyName(name: string): void {
  if (known.includes(name) || /^[a-z0-9][a-z0-9_.-]*:[a-z0-9_.:-]*$/.test(name)) return;
  const near = nearest(name, known);
  const advice = near === undefined ? "a user's property has a colon in its name" : `did you mean "${near}"?`;
  throw new Failure('usage', `is no file system property of ZFS that a template can set; ${advice}`);
}

/**
 * A property's value. Sizes are read by zfsdev's own rules (`200M` is 200 x 2^20, `200MB` is 200 x 10^6) and written
 * so that ZFS means the same by them.
 */
export function readProperty(name: string, input: unknown): string {
  const value = readPropertyValue(input);
  if (!isSizeProperty(name) || value === 'none') return value;
  return zfsSize(parseBytes(value));
}

export function isSizeProperty(name: string): boolean {
  return sizeProperties.some((property) => property === name);
}
