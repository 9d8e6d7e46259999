import { existsSync } from 'node:fs';
import { link, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkStorage } from '../../../src/vm/storage-check.ts';
import { call } from '../../support/call.ts';
import type { TestContext } from '../../support/context.ts';
import { StorageScene, disk, specOf } from './storage-scene.ts';

let scene: StorageScene;
let ctx: TestContext;
beforeEach(async () => {
  scene = await StorageScene.open();
  ctx = scene.ctx;
});
afterEach(() => scene.close());

describe('a disk that is not there', () => {
  it.each([
    ['/etc', '/etc/zfsdev-test.qcow2'],
    ['/usr', '/usr/../usr/share/zfsdev-test.qcow2'],
    ['/boot', '/boot/new/zfsdev-test.qcow2'],
    ['/var', '/var/zfsdev-test.qcow2'],
    ['/root', '/root/zfsdev-test.qcow2'],
  ])("is never made in the system's %s", async (folder, file) => {
    await expect(scene.layOut(disk('a', { file }))).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining(`lies in ${folder}, which is the system's`) as string,
    });
    expect(existsSync(file)).toBe(false);
  });

  it("may be made in root's own home, if that is the user's", async () => {
    const own = { ...ctx, env: { ...ctx.env, HOME: '/root' } };
    const spec = await specOf('one', disk('a', { file: '/root/zfsdev-test/a.qcow2' }));
    if (process.getuid?.() === 0) expect((await checkStorage(own, spec)).missing).toHaveLength(1);
    await expect(checkStorage(ctx, spec)).rejects.toMatchObject({ reason: 'files' });
  });

  it("is never made through a link into the system's folders, or through one that leads nowhere", async () => {
    await symlink('/etc', scene.at('link'));
    await expect(scene.layOut(disk('a', { file: scene.at('link', 'a.qcow2') }))).rejects.toThrow(
      /it leads to \/etc\/a\.qcow2/,
    );
    await symlink(scene.at('nowhere'), scene.at('dangling'));
    await expect(scene.layOut(disk('a', { file: scene.at('dangling') }))).rejects.toThrow(
      /symbolic link that leads nowhere/,
    );
    expect(await scene.files()).toEqual(['dangling', 'link']);
  });
});

describe('a file that is there', () => {
  it('is in use by no other machine: neither its disks, nor what they stand on', async () => {
    scene.make('theirs.qcow2');
    scene.make('base.qcow2');
    const theirs = [disk('d', { file: scene.at('theirs.qcow2'), backingFile: scene.at('base.qcow2') })];
    const { spec } = await scene.machine('two', theirs);
    const root = ctx.paths.instance(spec.name).disk;
    call('qemu-img', 'create', '-q', '-f', 'qcow2', root, '64M');
    await link(scene.at('theirs.qcow2'), scene.at('same.qcow2'));
    for (const [file, words] of [
      [scene.at('theirs.qcow2'), 'the disk "d" of "two"'],
      [scene.at('same.qcow2'), 'the disk "d" of "two"'],
      [scene.at('base.qcow2'), 'the disk "d" of "two", which stands on it'],
      [root, 'the disk of "two"'],
    ] as const) {
      await expect(scene.check(disk('a', { file }))).rejects.toMatchObject({
        reason: 'already-exists',
        data: { usedAs: words },
      });
    }
    // What nobody writes to may be read by many.
    await expect(scene.check(disk('a', { backingFile: scene.at('base.qcow2') }))).resolves.toMatchObject({});
    await expect(scene.check(disk('a', { backingFile: scene.at('theirs.qcow2') }))).rejects.toMatchObject({
      reason: 'already-exists',
    });
  });

  it("is not another machine's even before that one has made it", async () => {
    await scene.machine('two', [disk('d', { file: scene.at('later.qcow2') })]);
    await expect(scene.check(disk('a', { file: scene.at('later.qcow2') }))).rejects.toMatchObject({
      reason: 'already-exists',
    });
  });

  it('is not one of the same machine already, and no image', async () => {
    scene.make('a.qcow2');
    const twice = [
      disk('a', { file: scene.at('a.qcow2') }),
      disk('b', { file: scene.at('a.qcow2'), readonly: true }),
    ];
    await expect(scene.check(...twice)).rejects.toMatchObject({ reason: 'already-exists' });
    const image = join(ctx.paths.images, 'digest', 'disk.qcow2');
    await mkdir(join(ctx.paths.images, 'digest'), { recursive: true });
    await writeFile(image, '');
    await expect(scene.check(disk('a', { file: image, readonly: true }))).rejects.toThrow(
      /where zfsdev keeps the images/,
    );
  });
});
