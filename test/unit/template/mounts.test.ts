import { expect, test } from 'vitest';
import { renderMounts } from '../../../src/template/mounts.ts';
import type { DiskDevice, ShareDevice } from '../../../src/template/storage.ts';

const share: ShareDevice = {
  type: 'virtfs',
  name: 'src',
  path: '/home/me/src',
  mountTag: 'src',
  protocol: '9p',
  securityModel: 'mapped-xattr',
  readonly: false,
  mountAt: '/mnt/my-sources',
};
const disk: DiskDevice = {
  type: 'raw',
  name: 'data',
  interface: 'virtio',
  media: 'disk',
  readonly: false,
  discard: true,
};

test('a line for each share, in the order of the template', () => {
  const cache: ShareDevice = {
    ...share,
    name: 'cache',
    mountTag: 'c1',
    protocol: 'virtiofs',
    readonly: true,
    mountAt: '/cache',
  };
  expect(renderMounts([share, disk, cache])).toBe('9p\tsrc\t/mnt/my-sources\trw\nvirtiofs\tc1\t/cache\tro\n');
});

test('nothing for a machine without shares', () => {
  expect(renderMounts(undefined)).toBeUndefined();
  expect(renderMounts([disk])).toBeUndefined();
});

test.each(['', 'two places', 'two\tplaces', 'two\nplaces'])('%j is no mount point', (mountAt) => {
  expect(() => renderMounts([{ ...share, mountAt }])).toThrow('not safe');
});
