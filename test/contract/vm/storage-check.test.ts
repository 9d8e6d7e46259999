import { chmod, mkdir, truncate, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MiB } from '../../../src/core/bytes.ts';
import { call } from '../../support/call.ts';
import { StorageScene, disk, sizeless } from './storage-scene.ts';

let scene: StorageScene;
beforeEach(async () => {
  scene = await StorageScene.open();
});
afterEach(() => scene.close());

describe('a disk that is not there', () => {
  it.each([
    ['it is only read', { readonly: true, file: 'gone' }, 'not-found'],
    [
      'a cdrom has no medium',
      { media: 'cdrom', readonly: true, interface: 'sata', file: 'gone' },
      'not-found',
    ],
    ['its backing file is gone', { backingFile: 'gone' }, 'not-found'],
    ['its passphrase is gone', { format: { passphraseFile: 'gone' } }, 'files'],
    ['a folder on the way is a file', { file: 'file/a.qcow2' }, 'files'],
  ] as const)('is refused where %s', async (_, more, reason) => {
    await writeFile(scene.at('file'), '');
    const paths = Object.fromEntries(
      Object.entries(more).map(([key, value]) => {
        if (key === 'file' || key === 'backingFile') return [key, scene.at(String(value))];
        return [key, key === 'format' ? { passphraseFile: scene.at('gone') } : value];
      }),
    );
    await expect(scene.layOut(disk('a', paths))).rejects.toMatchObject({ reason });
    expect(await scene.files()).toEqual(['file']);
  });

  it('is refused without a size of its own', async () => {
    await expect(scene.layOut(sizeless('a', { file: scene.at('a.qcow2') }))).rejects.toMatchObject({
      reason: 'not-found',
      hint: expect.stringContaining('size') as string,
    });
  });

  it('wants a passphrase that nobody else can read', async () => {
    await writeFile(scene.at('pass'), 'x');
    await chmod(scene.at('pass'), 0o644);
    await expect(scene.layOut(disk('a', { format: { passphraseFile: scene.at('pass') } }))).rejects.toThrow(
      /read by others/,
    );
  });
});

describe('a file that is there', () => {
  it('must be of the format that its template says', async () => {
    await writeFile(scene.at('a.raw'), Buffer.alloc(MiB));
    await expect(scene.check(disk('a', { file: scene.at('a.raw') }))).rejects.toThrow(/is no qcow2/);
    await mkdir(scene.at('folder'));
    await expect(scene.check(disk('a', { file: scene.at('folder') }))).rejects.toThrow(/is a folder/);
    await writeFile(scene.at('b.qcow2'), 'QFI\u00fb and nothing more');
    await expect(scene.check(disk('a', { file: scene.at('b.qcow2') }))).rejects.toMatchObject({
      reason: 'files',
    });
  });

  it('stays raw, whatever its guest has written where a qcow2 would have its header', async () => {
    scene.make('a.raw', '1G');
    await truncate(scene.at('a.raw'), 64 * MiB);
    expect(await scene.check(disk('a', { type: 'raw', file: scene.at('a.raw') }))).toEqual({
      missing: [],
      notices: [],
    });
  });

  it('is never resized: a smaller one is refused, of a larger one it is told', async () => {
    scene.make('small.qcow2', '32M');
    scene.make('large.qcow2', '128M');
    await expect(scene.check(disk('a', { file: scene.at('small.qcow2') }))).rejects.toMatchObject({
      message: expect.stringContaining('has 32MiB, less than the 64MiB of its template') as string,
      hint: expect.stringContaining('qemu-img resize') as string,
    });
    const { notices } = await scene.check(disk('a', { file: scene.at('large.qcow2') }));
    expect(notices).toEqual([expect.stringContaining('has 128MiB, more than the 64MiB')]);
  });

  it('must stand on what its template says, and on nothing whose format would be guessed', async () => {
    scene.make('base.qcow2');
    scene.make('other.qcow2');
    call(
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-b',
      scene.at('base.qcow2'),
      '-F',
      'qcow2',
      scene.at('a.qcow2'),
    );
    const file = scene.at('a.qcow2');
    await expect(
      scene.check(disk('a', { file, backingFile: scene.at('base.qcow2') })),
    ).resolves.toMatchObject({
      missing: [],
    });
    await expect(scene.check(disk('a', { file, backingFile: scene.at('other.qcow2') }))).rejects.toThrow(
      /stands on .*, not on/,
    );
    await expect(scene.check(disk('a', { file }))).resolves.toMatchObject({ missing: [] });
    call('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', '', file);
    await expect(scene.check(disk('a', { file, backingFile: scene.at('base.qcow2') }))).rejects.toThrow(
      /stands on nothing/,
    );
  });
});
