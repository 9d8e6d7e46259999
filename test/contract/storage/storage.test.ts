import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bytes, MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { createQcow2 } from '../../../src/qemu/img-create.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import type { DiskDevice, ShareDevice, StorageDevice } from '../../../src/template/storage.ts';
import { checkMemory } from '../../../src/vm/memory-blockers.ts';
import type { SnapshotMachine } from '../../../src/vm/snapshot-driver.ts';
import { newState } from '../../../src/vm/state.ts';
import { qmpPeer, returns } from '../../fakes/qmp-peer.ts';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done, refused } from '../../support/outcome.ts';
import { shell, type Shell } from '../../support/zfsdev.ts';

let ctx: TestContext;
let zfsdev: Shell;
let paths: Record<'root' | 'data' | 'secret' | 'raw', string>;
const at = (name: string): string => join(ctx.folder, name);
const qemu = (program: 'qemu-img' | 'qemu-io', ...args: string[]): string =>
  callIn(ctx.folder, program, ...args);

const disk = (name: string, more: Partial<DiskDevice> = {}): DiskDevice => ({
  type: 'qcow2',
  name,
  size: bytes(64 * MiB),
  interface: 'virtio',
  media: 'disk',
  readonly: false,
  discard: true,
  ...more,
});
const share = (more: Partial<ShareDevice> = {}): ShareDevice => ({
  type: 'virtfs',
  name: 'work',
  path: ctx.folder,
  mountTag: 'work',
  protocol: '9p',
  securityModel: 'mapped-xattr',
  readonly: false,
  mountAt: '/mnt/work',
  ...more,
});

/** A stopped machine with two further qcow2, one of them encrypted, a raw disk, and a share. */
/** Encrypting takes QEMU seconds of a processor, on purpose; one such disk is enough for all. */
let encrypted: TestContext;
beforeAll(async () => {
  encrypted = await testContext();
  const path = join(encrypted.folder, 'secret.qcow2');
  const passphraseFile = join(encrypted.folder, 'pass');
  await writeFile(passphraseFile, 'correct horse', { mode: 0o600 });
  await writeFile(path, '');
  await createQcow2(encrypted, { path, size: bytes(64 * MiB), passphraseFile });
});
afterAll(() => encrypted.remove());

beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B' });
  const own = await stoppedInstance(ctx.paths, 'a', { diskBound: 64 * MiB });
  await mkdir(own.disks, { mode: 0o700 });
  paths = {
    root: own.disk,
    data: join(own.disks, 'data.qcow2'),
    secret: at('secret.qcow2'),
    raw: at('raw.img'),
  };
  await cp(join(encrypted.folder, 'pass'), at('pass'));
  const storage: StorageDevice[] = [
    disk('data'),
    disk('secret', { file: paths.secret, format: { passphraseFile: at('pass') } }),
    disk('raw', { type: 'raw', file: paths.raw }),
    share(),
  ];
  await writeFile(own.spec, JSON.stringify({ ...(await resolveSpec('zfs-test', { name: 'a' })), storage }));
  for (const path of [paths.root, paths.data]) qemu('qemu-img', 'create', '-q', '-f', 'qcow2', path, '64M');
  await cp(join(encrypted.folder, 'secret.qcow2'), paths.secret);
  // What its guest has put there looks like a qcow2 that is damaged.
  await writeFile(paths.raw, Buffer.concat([Buffer.from('QFI\u00fb', 'latin1'), Buffer.alloc(4 * MiB, 1)]));
});
afterEach(() => ctx.remove());

describe('a machine with storage', () => {
  it('has snapshots of all its qcow2, an encrypted one among them, and says what is left out', async () => {
    qemu('qemu-io', '-c', 'write -P 1 0 1M', paths.data);
    const taken = await done(zfsdev('snapshot', 'create', 'a', 'one'));
    expect(taken.stderr).toContain('left out, as only a qcow2 can hold snapshots: raw, work');
    qemu('qemu-io', '-c', 'write -P 2 0 1M', paths.data);
    const { stdout } = await done(zfsdev('snapshot', 'list', 'a', '--json'));
    expect(JSON.stringify(JSON.parse(stdout))).toMatch(/"root".*"data".*"secret"/);
    await done(zfsdev('snapshot', 'load', 'a', 'one'));
    expect(qemu('qemu-io', '-c', 'read -P 1 0 1M', paths.data)).not.toContain('failed');
    await done(zfsdev('snapshot', 'delete', 'a', 'one'));
    for (const path of [paths.root, paths.data])
      expect(qemu('qemu-img', 'info', path)).not.toContain('Snapshot list');
  });

  it.each(['raw', 'work'])('refuses a snapshot of %s by name', async (name) => {
    const created = zfsdev('snapshot', 'create', 'a', 'one', '--disk', name);
    await refused(created, 4, `"${name}" of "a" can't hold snapshots`);
  });

  it('refuses to export what is encrypted', async () => {
    await done(zfsdev('snapshot', 'create', 'a', 'one'));
    const words = ['export', 'a', 'one', '--disk', 'secret', '--output', at('out.qcow2')];
    await refused(zfsdev('snapshot', ...words), 4, 'is encrypted, and an export would not be');
    expect(existsSync(at('out.qcow2'))).toBe(false);
  });

  it('is told in full by usage, inspect and list, the raw disk as what it is', async () => {
    const usage = JSON.parse((await done(zfsdev('usage', 'a', '--json'))).stdout) as object;
    const text = JSON.stringify(usage);
    for (const path of Object.values(paths)) expect(text).toContain(JSON.stringify(path).slice(1, -1));
    expect(text).not.toContain('is damaged');
    const shown = await done(zfsdev('inspect', 'a'));
    expect(shown.stdout).toMatch(/storage +data: qcow2 by virtio, 64MiB virtual, .* actual, .*data\.qcow2/);
    expect(shown.stdout).toContain('/mnt/work, by 9p');
    const listed = JSON.parse((await done(zfsdev('list', '--json'))).stdout) as {
      instances: { actualBytes: number }[];
    };
    expect(listed.instances[0]?.actualBytes).toBeGreaterThan(4 * MiB);
  });

  it('has all of its plain qcow2 compacted', async () => {
    qemu('qemu-io', '-c', 'write -P 65 0 32M', paths.data);
    qemu('qemu-io', '-c', 'write -P 65 0 8M', paths.root);
    const before = (await stat(paths.data)).blocks;
    const told = await done(zfsdev('compact', 'a'));
    expect(told.stderr).toContain("what is encrypted can't be compressed");
    expect((await stat(paths.data)).blocks).toBeLessThan(before / 4);
    expect(qemu('qemu-io', '-c', 'read -P 65 0 32M', paths.data)).not.toContain('failed');
  });

  it('is deleted with what is in its folder, and leaves and names the rest', async () => {
    const deleted = await done(zfsdev('delete', 'a'));
    expect(deleted.stderr).toContain(
      `left where they are, as your template names them: ${paths.secret}, ${paths.raw}`,
    );
    expect(existsSync(paths.secret) && existsSync(paths.raw)).toBe(true);
    expect(await readdir(ctx.paths.instances)).toEqual([]);
  });
});

describe('memory beside storage', () => {
  const machine = async (...storage: StorageDevice[]): Promise<SnapshotMachine> => {
    const name = parseName('a');
    const spec = { ...(await resolveSpec('zfs-test', { name })), storage };
    return { instance: { name, spec, state: newState('qemu') }, running: true, disks: [] };
  };

  it.each([
    ['a raw disk', (): StorageDevice => disk('db', { type: 'raw' }), 'its disk "db" is raw'],
    [
      'a share by virtiofs',
      (): StorageDevice => share({ protocol: 'virtiofs' }),
      'its share "work" goes by virtiofs',
    ],
  ])('is not saved with %s', async (_, device, words) => {
    await expect(checkMemory(ctx, await machine(device()), 'one', true)).rejects.toMatchObject({
      reason: 'unsupported',
      message: expect.stringContaining(words) as string,
      hint: expect.stringContaining('zfsdev snapshot create a one --live') as string,
    });
    await expect(checkMemory(ctx, await machine(device()), 'one', false)).resolves.toBeUndefined();
  });

  it('is saved with a share by 9p only while that is not mounted, as QEMU says', async () => {
    const words =
      "Migration is disabled when VirtFS export path '/x' is mounted in the guest using mount_tag 'work'";
    const { qmp } = ctx.paths.instance(parseName('a'));
    const peer = await qmpPeer(qmp, [returns('query-migrate', { 'blocked-reasons': [words] })]);
    await expect(checkMemory(ctx, await machine(share()), 'one', true)).rejects.toMatchObject({
      reason: 'unsupported',
      detail: words,
      hint: expect.stringContaining('zfsdev exec a -- umount /mnt/work') as string,
    });
    peer.verify();
    await peer.close();
    const free = await qmpPeer(qmp, [returns('query-migrate', {})]);
    await expect(checkMemory(ctx, await machine(share()), 'one', true)).resolves.toBeUndefined();
    free.verify();
    await free.close();
  });
});

describe('a template with storage', () => {
  const head = `description: d
cpus: 1
memory: 1GiB
disk: 4GiB
worstCase: { base: 1GiB }
`;

  it('is planned: what would be made, and how QEMU would be run', async () => {
    await writeFile(
      at('mine.yaml'),
      `${head}storage:\n  - { name: d, type: qcow2, size: 1G, file: vms/d.qcow2 }\n`,
    );
    const planned = await done(zfsdev('up', '--dry-run', at('mine.yaml')));
    const text = planned.stdout + planned.stderr;
    expect(text).toContain(`create ${at('vms/d.qcow2')}, the qcow2 disk "d", 1 GiB virtual`);
    expect(text).toContain('"serial":"d"');
    expect(existsSync(at('vms'))).toBe(false);
  });

  it.each([
    ['render', 4],
    ['warm build', 4],
  ])('is refused by %s, with what can have it', async (verb, exitCode) => {
    await writeFile(at('mine.yaml'), `${head}storage:\n  - { type: qcow2, size: 1G }\n`);
    const asked = zfsdev(...verb.split(' '), at('mine.yaml'));
    await refused(asked, exitCode, 'storage', /--driver qemu|up and run boot/);
  });
});
