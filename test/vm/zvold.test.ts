import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call } from '../support/call.ts';
import { ownHome, removeAll } from '../support/home.ts';
import { scriptInGuest } from '../support/in-guest.ts';
import { refused } from '../support/outcome.ts';
import { toQcow2 } from '../support/qemu-img.ts';

const zfsdev = ownHome();
const name = 'vols';
const MiB = 2 ** 20;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-zvold-'));
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
});

afterAll(async () => {
  await removeAll(zfsdev);
  await rm(folder, { recursive: true, force: true });
});

async function json(...words: string[]): Promise<Record<string, unknown>> {
  const { exitCode, stdout, stderr } = await zfsdev(...words, '--json');
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  return JSON.parse(stdout.split('\n').at(-1) ?? '') as Record<string, unknown>;
}

const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);

/** A command that waits for a condition of the shell's. */
const until = (condition: string): string => `timeout 300 sh -c 'until ${condition}; do :; done'`;

const sumOf = (volume: string): Promise<string> =>
  guest(`sha256sum </dev/zvol/testpool/${volume} | cut -d ' ' -f 1`);
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

// One machine goes through all of it; each test begins where the one before it ended.
describe('volumes of a machine, driven from the host', () => {
  const content = Buffer.concat([randomBytes(3 * MiB), Buffer.alloc(4 * MiB), randomBytes(MiB)]);

  it('are created with a device, listed, and tell what they are', async () => {
    const { volume } = await json('volume', 'create', name, 'data', '--size', '16MiB', '--id', 'mine');
    expect(volume).toMatchObject({
      id: 'mine',
      name: 'data',
      path: '/dev/zvol/testpool/data',
      sizeBytes: 16 * MiB,
      reservedBytes: 0,
    });
    expect(
      await guest(
        'blockdev --getsize64 /dev/zvol/testpool/data; zfs get -H -o value volblocksize,refreservation testpool/data',
      ),
    ).toBe(`${16 * MiB}\n16K\nnone`);
    expect((await zfsdev('volume', 'list', name)).stdout).toMatch(/^data\s+16 MiB/m);
    expect(await json('volume', 'create', name, 'data', '--size', '16MiB', '--id', 'mine')).toMatchObject({
      volume: { id: 'mine' },
    });
  });

  it('are written to, snapshotted, changed and rolled back', async () => {
    await guest('head -c 16M /dev/urandom >/dev/zvol/testpool/data && sync');
    const before = await sumOf('data');
    await json('vsnap', 'create', name, 'data', 'first');
    await guest('head -c 1M /dev/urandom | dd of=/dev/zvol/testpool/data conv=notrunc,fsync status=none');
    expect(await sumOf('data')).not.toBe(before);
    await json('vsnap', 'create', name, 'data', 'second');
    await refused(zfsdev('vsnap', 'rollback', name, 'data', 'first'), 4, /newer snapshots "second"/);
    await json('vsnap', 'rollback', name, 'data', 'first', '--delete-newer');
    expect(await sumOf('data')).toBe(before);
  });

  it('become templates that are cloned, larger if asked, and count their clones', async () => {
    await json('template', 'create', name, 'base', 'data', 'first');
    expect(await json('template', 'clone', name, 'base', 'copy', '--size', '24MiB')).toMatchObject({
      volume: { sizeBytes: 24 * MiB, template: 'base' },
    });
    expect(await guest('head -c 16M /dev/zvol/testpool/copy | sha256sum | cut -d " " -f 1')).toBe(
      await sumOf('data'),
    );
    expect(await json('template', 'list', name)).toMatchObject({
      templates: [{ name: 'base', clones: ['copy'] }],
    });
    await refused(zfsdev('template', 'delete', name, 'base'), 4, /"copy" was cloned from it/);
    await refused(zfsdev('volume', 'delete', name, 'data'), 4, /"copy" was cloned from its snapshot "first"/);
  });

  it('grow, and never shrink', async () => {
    await json('volume', 'resize', name, 'copy', '32MiB');
    expect(await guest('blockdev --getsize64 /dev/zvol/testpool/copy')).toBe(String(32 * MiB));
    await refused(zfsdev('volume', 'resize', name, 'copy', '8MiB'), 4, /never made smaller/);
  });

  it('are imported from a qcow2 of this host, and exported to one again', async () => {
    await writeFile(join(folder, 'disk.raw'), content);
    toQcow2(join(folder, 'disk.raw'), join(folder, 'disk.qcow2'), '-c');
    const { import: made } = await json('import', 'start', name, 'imported', join(folder, 'disk.qcow2'));
    expect(made).toMatchObject({ state: 'IMPORT_STATE_COMPLETED', template: { sizeBytes: content.length } });
    await json('template', 'clone', name, 'imported', 'disk');
    expect(await sumOf('disk')).toBe(sha256(content));
    const exported = await json('volume', 'export', name, 'disk', join(folder, 'out.raw'));
    expect(exported).toMatchObject({ sha256: sha256(content), sizeBytes: content.length });
    expect((await readFile(join(folder, 'out.raw'))).equals(content)).toBe(true);
    await json('volume', 'export', name, 'disk', join(folder, 'out.qcow2'));
    expect(call('qemu-img', 'compare', join(folder, 'out.qcow2'), join(folder, 'disk.raw'))).toContain(
      'identical',
    );
    expect(await guest('zfs list -H -o name -t all | grep export- || true')).toBe('');
  });

  it('that were made by hand are looked after as well, and renamed with their devices', async () => {
    await guest("zfs create -s -V 1M 'testpool/by hand'");
    const { volume } = await json('volume', 'get', name, 'by hand');
    expect(volume).toMatchObject({ name: 'by hand', path: '/dev/zvol/testpool/by+hand' });
    await guest(until('test -b /dev/zvol/testpool/by+hand'));
    await refused(zfsdev('volume', 'rename', name, 'by hand', 'data'), 4, /already exists/);
    expect(await json('volume', 'rename', name, 'by hand', 'handy')).toMatchObject({
      volume: { id: (volume as { id: string }).id, name: 'handy', path: '/dev/zvol/testpool/handy' },
    });
    await guest('test -b /dev/zvol/testpool/handy');
    await guest(until('! test -e /dev/zvol/testpool/by+hand'));
    await refused(zfsdev('volume', 'get', name, 'by hand'), 4, /there is no volume "by hand"/);
  });

  it('have snapshots that are held, and go when they are let go of', async () => {
    await json('vsnap', 'create', name, 'handy', 'one');
    expect(await json('vsnap', 'hold', name, 'handy', 'one', 'backup')).toMatchObject({
      snapshot: { fullName: 'testpool/handy@one', holds: 1 },
    });
    await refused(zfsdev('vsnap', 'hold', name, 'handy', 'one', 'backup'), 4, /already/);
    await refused(zfsdev('vsnap', 'delete', name, 'handy', 'one'), 4, /its snapshot "one" is held/);
    await refused(zfsdev('volume', 'delete', name, 'handy'), 4, /its snapshot "one" is held/);
    expect(await json('vsnap', 'delete', name, 'handy', 'one', '--deferred')).toMatchObject({
      deferred: true,
    });
    await refused(zfsdev('vsnap', 'release', name, 'handy', 'one', 'nobody'), 4, /no such tag/);
    expect(await json('vsnap', 'release', name, 'handy', 'one', 'backup')).toEqual({ snapshot: null });
    expect(await json('vsnap', 'list', name, 'handy')).toEqual({ snapshots: [] });
    await json('volume', 'delete', name, 'handy');
  });

  it('are not deleted while they are used, and then go with their devices', async () => {
    await guest('mkfs.ext4 -q /dev/zvol/testpool/copy && mount /dev/zvol/testpool/copy /mnt');
    await refused(zfsdev('volume', 'delete', name, 'copy'), 4, /mounted at \/mnt/);
    await refused(zfsdev('vsnap', 'create', name, 'copy', 'a/b'), 2, /must begin with a letter/);
    await guest('umount /mnt');
    for (const volume of ['copy', 'disk']) await json('volume', 'delete', name, volume);
    await json('template', 'delete', name, 'base');
    await json('template', 'delete', name, 'imported');
    await json('volume', 'delete', name, 'data');
    expect(await json('volume', 'list', name)).toEqual({ volumes: [] });
    expect(await guest('zfs list -H -o name -t all; ls /dev/zvol/testpool 2>/dev/null || true')).toBe(
      'testpool\ntestpool/.zvold',
    );
  });

  it('run out of room with a word of that, and nothing half-made', async () => {
    await refused(zfsdev('volume', 'create', name, 'fat', '--size', '2GiB', '--thick'), 3, /space|quota/);
    expect(await json('volume', 'list', name)).toEqual({ volumes: [] });
  });
});
