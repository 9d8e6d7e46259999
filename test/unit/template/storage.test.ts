import { homedir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { resolveTemplate } from '../../../src/template/resolve.ts';
import { parseTemplate } from '../../../src/template/source.ts';
import { formatSpec, parseSpec } from '../../../src/template/spec.ts';
import type { StorageDevice } from '../../../src/template/storage.ts';

const head = `description: d
cpus: 1
memory: 1GiB
disk: 4GiB
image: { flavour: base }
worstCase: { base: 1GiB }
`;

const file = '/w/dir/mine.yaml';
const origin = { template: file, file, builtIn: false };

function read(storage: string): readonly StorageDevice[] | undefined {
  const spec = resolveTemplate(parseTemplate(`${head}${storage}`, origin));
  // What is written down is read again as it was.
  expect(parseSpec(formatSpec(spec))).toEqual(spec);
  return spec.storage;
}

/** What is wrong with a list, a line each: line and column in the text, the key, the words. */
function problems(storage: string): string[] {
  try {
    read(storage);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const found = error.data['problems'] as { line: number; column: number; key: string; message: string }[];
    const above = head.split('\n').length - 1;
    return found.map(({ line, column, key, message }) => `${line - above}:${column} ${key}: ${message}`);
  }
  return [];
}

describe('storage of a template', () => {
  it("takes the guide's complete example as it stands", () => {
    const found = read(`storage:
  # System disk (QCOW2 with snapshots)
  - name: system
    type: qcow2
    file: /vms/dev-system.qcow2
    size: 50G
    interface: virtio
  - name: data
    type: raw
    file: /vms/dev-data.raw
    size: 100G
    interface: virtio
  - name: cdrom
    type: raw
    file: /iso/ubuntu-22.04.iso
    interface: sata
    media: cdrom
  - name: workspace
    type: virtfs
    path: /home/user/workspace
    mount_tag: workspace
    security_model: mapped-xattr
    readonly: false
`);
    const disk = { interface: 'virtio', media: 'disk', readonly: false, discard: true };
    expect(found).toEqual([
      { ...disk, type: 'qcow2', name: 'system', file: '/vms/dev-system.qcow2', size: 50 * 2 ** 30 },
      { ...disk, type: 'raw', name: 'data', file: '/vms/dev-data.raw', size: 100 * 2 ** 30 },
      {
        ...disk,
        type: 'raw',
        name: 'cdrom',
        file: '/iso/ubuntu-22.04.iso',
        interface: 'sata',
        media: 'cdrom',
        readonly: true,
      },
      {
        type: 'virtfs',
        name: 'workspace',
        path: '/home/user/workspace',
        mountTag: 'workspace',
        protocol: '9p',
        securityModel: 'mapped-xattr',
        readonly: false,
        mountAt: '/mnt/workspace',
      },
    ]);
  });

  it('has safe defaults: a share of nothing but a folder is mapped, a disk without a name is numbered', () => {
    const [disk, cdrom, share] =
      read(`storage:
  - { type: qcow2, size: 1G }
  - { type: raw, media: cdrom, file: a.iso }
  - { type: virtfs, path: /opt/shared }
`) ?? [];
    expect(disk).toMatchObject({ name: 'storage0', interface: 'virtio', discard: true, readonly: false });
    expect(disk).not.toHaveProperty('file');
    expect(cdrom).toMatchObject({ name: 'storage1', interface: 'sata', readonly: true });
    expect(share).toMatchObject({
      name: 'storage2',
      mountTag: 'storage2',
      mountAt: '/mnt/storage2',
      securityModel: 'mapped-xattr',
      protocol: '9p',
    });
  });

  it('reads what is documented as top-level keys of a share, and does not turn it into passthrough and writable', () => {
    const [share] =
      read(`storage:
  - { name: shared, type: virtfs, path: /opt/shared, mount_tag: hostshare, security_model: none, readonly: true }
`) ?? [];
    expect(share).toMatchObject({ securityModel: 'none', readonly: true, mountTag: 'hostshare' });
  });

  it('reads all that a qcow2 can be made of', () => {
    const [disk] =
      read(`storage:
  - name: d
    type: qcow2
    backing_file: base.raw
    backing_format: raw
    discard: off
    interface: none
    format: { cluster_size: 2M, compression: zstd, encryption: { passphrase_file: ./pass } }
`) ?? [];
    expect(disk).toMatchObject({
      backingFile: '/w/dir/base.raw',
      backingFormat: 'raw',
      discard: false,
      interface: 'none',
      format: { clusterSize: 2 ** 21, compression: 'zstd', passphraseFile: '/w/dir/pass' },
    });
  });

  it("has paths relative to the template's file, and ~/ as the user's home", () => {
    const found = read(`storage:
  - { name: a, type: raw, size: 1G, file: ../a.raw }
  - { name: b, type: raw, size: 1G, file: ~/b.raw }
  - { name: c, type: raw, size: 1G, file: /x/../etc/c.raw }
  - { name: d, type: virtfs, path: . }
`);
    expect(found).toMatchObject([
      { file: '/w/a.raw' },
      { file: join(homedir(), 'b.raw') },
      { file: '/etc/c.raw' },
      { path: '/w/dir' },
    ]);
  });

  it('tells all problems at once, each with its line and column', () => {
    expect(
      problems(`storage:
  - name: Root!
    type: qcow2
    sise: 1G
  - name: root
    type: raw
    size: -5G
    interface: usb
  - type: floppy
  - name: share
    type: virtfs
    mountAt: /mnt/x
    size: 1G
  - nothing
`),
    ).toMatchInlineSnapshot(`
      [
        "2:5 storage[0].size: is missing: there is no file or backing_file that it could come from",
        "2:11 storage[0].name: "Root!" is not a name for storage: 1 to 20 small letters, digits and inner - or _",
        "4:5 storage[0].sise: is not a known key; did you mean "size"?",
        "5:11 storage[1].name: "root" is the name of the disk with the root file system",
        "7:11 storage[1].size: "-5G" is a negative size; write a number and a unit, for instance 512MiB, 4GiB or 10GB",
        "8:16 storage[1].interface: must be one of virtio, sata, ide, scsi, none, not "usb"",
        "9:11 storage[2].type: must be one of qcow2, raw, virtfs, not "floppy"",
        "10:5 storage[3].path: is missing: the folder of the host",
        "12:5 storage[3].mountAt: is not a known key; did you mean "mount_at"?",
        "13:5 storage[3].size: does not belong to this type of storage; the keys here are name, type, readonly, path, mount_tag, security_model, protocol, mount_at",
        "14:5 storage[4]: must be a map, not "nothing"",
      ]
    `);
  });

  it.each([
    [
      'a map instead of a list',
      'storage: { name: a }',
      'must be a list of disks and shares, each a map, not a map',
    ],
    ['nothing', 'storage:', 'not empty'],
    ['a raw disk on a backing file', '- { type: raw, size: 1G, backing_file: b }', 'belongs to a qcow2'],
    [
      'an encrypted raw disk',
      '- { type: raw, size: 1G, format: { encryption: { passphrase_file: p } } }',
      'belongs to a qcow2',
    ],
    [
      'a format without its file',
      '- { type: qcow2, size: 1G, backing_format: raw }',
      'belongs to a backing_file',
    ],
    ['a qcow2 of no size', '- { type: qcow2 }', 'size: is missing'],
    [
      'a new disk that is only read',
      '- { type: qcow2, size: 1G, readonly: true }',
      'needs a file that is there',
    ],
    ['a cdrom without a medium', '- { type: raw, media: cdrom }', 'the medium of a cdrom must be there'],
    ['a cdrom that is written to', '- { type: raw, media: cdrom, file: a, readonly: off }', 'only read'],
    ['a cdrom by virtio', '- { type: raw, media: cdrom, file: a, interface: virtio }', 'virtio has no cdrom'],
    ['a cdrom of a size', '- { type: raw, media: cdrom, file: a, size: 1G }', 'belongs to a disk'],
    [
      'a share of a size',
      '- { type: virtfs, path: /a, size: 1G }',
      'does not belong to this type of storage',
    ],
    [
      'a disk with a tag',
      '- { type: raw, size: 1G, mount_tag: a }',
      'does not belong to this type of storage',
    ],
    ['a share of nothing', '- { type: virtfs }', 'path: is missing'],
    [
      'a model for virtiofs',
      '- { type: virtfs, path: /a, protocol: virtiofs, security_model: none }',
      'belongs to 9p',
    ],
    ['a strange cluster size', '- { type: qcow2, size: 1G, format: { cluster_size: 3K } }', 'power of two'],
    [
      'encryption without a passphrase',
      '- { type: qcow2, size: 1G, format: { encryption: {} } }',
      'is missing',
    ],
    [
      'an unknown way of encryption',
      '- { type: qcow2, size: 1G, format: { encryption: { key: a } } }',
      'known key',
    ],
    ['an address for a file', '- { type: raw, size: 1G, file: "http://a/b" }', 'an address, not a path'],
    ["somebody's home", '- { type: raw, size: 1G, file: ~me/b }', "names somebody's home"],
    ['a size of no sectors', '- { type: raw, size: 1000 }', 'multiple of 512'],
    ['a name of 21 letters', `- { type: raw, size: 1G, name: ${'a'.repeat(21)} }`, 'not a name for storage'],
    ['a mount over the system', '- { type: virtfs, path: /a, mount_at: /usr }', "the guest's own"],
    [
      'a mount at a place with a space',
      '- { type: virtfs, path: /a, mount_at: "/mnt/a b" }',
      'not a place to mount',
    ],
    [
      'a mount with a percent sign',
      '- { type: virtfs, path: /a, mount_at: /mnt/%h }',
      'not a place to mount',
    ],
    ['a mount that climbs', '- { type: virtfs, path: /a, mount_at: /mnt/../usr }', 'not a place to mount'],
    ['a tag with a space', '- { type: virtfs, path: /a, mount_tag: a b }', 'not a tag'],
    ['a key in camelCase', '- { type: virtfs, path: /a, mountTag: b }', 'did you mean "mount_tag"?'],
  ])('refuses %s', (_, item, words) => {
    const text = item.startsWith('-') ? `storage:\n  ${item}\n` : item;
    expect(problems(text).join('\n')).toContain(words);
  });

  it('refuses what only one of them can have', () => {
    expect(
      problems(`storage:
  - { name: a, type: raw, size: 1G, file: x }
  - { name: a, type: raw, size: 1G, file: x }
  - { name: s, type: virtfs, path: /a, mount_tag: t, mount_at: /mnt/m }
  - { name: u, type: virtfs, path: /a, mount_tag: t, mount_at: /mnt/m }
`),
    ).toEqual([
      '3:13 storage[1].name: "a" is taken by storage[0] already',
      expect.stringContaining('storage[1].file: "x" is taken by storage[0] already'),
      expect.stringContaining('storage[3].mount_tag: "t" is taken by storage[2] already'),
      expect.stringContaining('storage[3].mount_at: "/mnt/m" is taken by storage[2] already'),
    ]);
  });

  it('has room for four of ide, and sixteen in all', () => {
    const ide = (count: number): string =>
      `storage:\n${Array.from({ length: count }, () => '  - { type: raw, size: 1G, interface: ide }\n').join('')}`;
    expect(problems(ide(4))).toEqual([]);
    expect(problems(ide(5))).toEqual([expect.stringContaining('storage[4].interface: there is room for 4')]);
    const many = ide(17).replaceAll('interface: ide', 'interface: virtio');
    expect(problems(many)).toEqual([expect.stringContaining('storage: has 17 disks and shares')]);
  });
});
