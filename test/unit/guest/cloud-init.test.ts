import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { seedContents, type CloudSettings } from '../../../src/guest/cloud-init.ts';

const withoutPool: CloudSettings = {
  name: 'm1',
  instanceId: 'zfsdev-0123',
  userKey: 'ssh-ed25519 AAAA zfsdev\n',
  hostKey: { privateKey: '-----BEGIN-----\nkey\n-----END-----\n', publicKey: 'ssh-ed25519 BBBB m1\n' },
  scripts: [
    { file: 'zfs-packages.sh', text: '#!/bin/sh\n# {{ braces }}\t"quotes" \\ and: colons\n' },
    { file: 'pool.sh', text: '#!/bin/sh\ntrue\n' },
  ],
  runner: '#!/bin/sh\nrun\n',
};
const settings = { ...withoutPool, poolConf: 'POOL_NAME=lab\n' };

interface UserData {
  readonly write_files: readonly { path: string; content: string; permissions: string }[];
}

test('a seed names the machine and holds what cloud-init is to do', () => {
  const contents = seedContents(settings);
  expect([...contents.keys()]).toEqual(['meta-data', 'user-data']);
  expect(parse(contents.get('meta-data') ?? '')).toEqual({
    'instance-id': 'zfsdev-0123',
    'local-hostname': 'm1',
  });
  const text = contents.get('user-data') ?? '';
  expect(text.startsWith('#cloud-config\n')).toBe(true);
  expect(parse(text)).toMatchObject({
    hostname: 'm1',
    disable_root: false,
    ssh_authorized_keys: ['ssh-ed25519 AAAA zfsdev'],
    ssh_keys: { ed25519_private: settings.hostKey.privateKey, ed25519_public: 'ssh-ed25519 BBBB m1' },
    growpart: { devices: ['/'] },
    resize_rootfs: true,
  });
});

test('scripts arrive as they are, in their order, and are run at each boot', () => {
  const { write_files: files } = parse(seedContents(settings).get('user-data') ?? '') as UserData;
  expect(files.map(({ path, permissions }) => `${permissions} ${path}`)).toEqual([
    '0644 /etc/zfsdev/pool.conf',
    '0755 /etc/zfsdev/provision/01-zfs-packages.sh',
    '0755 /etc/zfsdev/provision/02-pool.sh',
    '0755 /var/lib/cloud/scripts/per-boot/zfsdev',
  ]);
  expect(files.map(({ content }) => content)).toEqual([
    settings.poolConf,
    ...settings.scripts.map(({ text }) => text),
    settings.runner,
  ]);
});

test('what it is to mount lies where the script that mounts looks for it', () => {
  const mounts = '9p\tsrc\t/mnt/src\tro\n';
  const { write_files: files } = parse(
    seedContents({ ...withoutPool, mounts, scripts: [] }).get('user-data') ?? '',
  ) as UserData;
  expect(files[0]).toMatchObject({ path: '/etc/zfsdev/mounts', content: mounts, permissions: '0600' });
});

test('a machine without a pool gets no settings of one', () => {
  const plain = seedContents({ ...withoutPool, scripts: [] });
  const { write_files: files } = parse(plain.get('user-data') ?? '') as UserData;
  expect(files.map(({ path }) => path)).toEqual(['/var/lib/cloud/scripts/per-boot/zfsdev']);
});
