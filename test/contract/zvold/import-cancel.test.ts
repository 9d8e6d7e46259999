import { randomBytes } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { ImportScene, MiB, wanted } from './import-scene.ts';
import type { ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

describe('an import is cancelled, and leaves nothing,', () => {
  /** Cancels at a call that zvold makes, which then goes on. */
  function cancelAt(words: string): { readonly cancelled: Promise<boolean> } {
    let done: (cancelled: Promise<boolean>) => void = () => undefined;
    const cancelled = new Promise<boolean>((resolve) => (done = resolve));
    house.fake.before = (argv) => {
      if (argv.join(' ').startsWith(words)) done(house.imports.cancel('mine'));
    };
    return { cancelled };
  }

  it.each([
    ['while its zvol is made', 'zfs create -s', 'template'],
    ['while its snapshot is taken', 'zfs snapshot', 'template'],
    ['while it gets its name', 'zfs rename', 'volume'],
  ] as const)('%s', async (_, words, target) => {
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt(words);
    await house.imports.start(wanted({ id: 'mine', target }), scene.path('disk.raw'));
    expect(await cancelled).toBe(true);
    expect(house.imports.get('mine')).toMatchObject({ state: 'cancelled' });
    await house.expectNothingLeft();
  });

  it('but for its last step, after which it is whole', async () => {
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt('zfs inherit');
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    expect(await cancelled).toBe(false);
    expect(house.imports.get('mine')).toMatchObject({ state: 'completed' });
  });

  it('while a source is hashed and looked through, whose progress is told', async () => {
    await scene.qcow2();
    // What lies behind the content belongs to nothing.
    await truncate(scene.path('disk.qcow2'), 512 * MiB);
    house.convert = () => Promise.reject(new Error('it was read'));
    await house.imports.start(wanted({ id: 'mine', sha256: '0'.repeat(64) }), scene.path('disk.qcow2'));
    await expect.poll(() => house.imports.get('mine').done, { interval: 1 }).toBeGreaterThan(0);
    expect(house.imports.get('mine')).toMatchObject({ state: 'converting' });
    expect(await house.imports.cancel('mine')).toBe(true);
    await house.expectNothingLeft();
  });

  it('before its source is opened', async () => {
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt('zfs create -o canmount=off');
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    expect(await cancelled).toBe(true);
    await house.expectNothingLeft();
  });

  it('while raw content is written', async () => {
    await writeFile(scene.path('disk.raw'), '');
    await truncate(scene.path('disk.raw'), 4096 * MiB);
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await expect.poll(() => house.imports.get('mine').done, { interval: 1 }).toBeGreaterThan(0);
    expect(house.imports.get('mine')).toMatchObject({ state: 'writing', total: 4096 * MiB });
    expect(await house.imports.cancel('mine')).toBe(true);
    await house.expectNothingLeft();
  });

  it('which is said where something stays', async () => {
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt('zfs snapshot');
    const cancel = house.fake.before;
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy') throw new ZvolError('INTERNAL', 'something is wrong');
      return cancel(argv);
    };
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await expect(cancelled).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(
        /^the import mine is cancelled, but tank\/\.zvold\/mine could not/,
      ) as string,
    });
    expect(house.imports.get('mine')).toMatchObject({
      state: 'cancelled',
      error: expect.stringMatching(/^tank\/\.zvold\/mine could not be taken away/) as string,
    });
  });

  it('when its pool is back, if it hangs on that', async () => {
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    let goOn = (): void => undefined;
    house.fake.before = (argv) =>
      argv.join(' ').startsWith('zfs snapshot') ? new Promise((resolve) => (goOn = resolve)) : undefined;
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await expect.poll(() => house.fake.calls.some((words) => words.startsWith('zfs snapshot'))).toBe(true);
    house.fake.state = 'SUSPENDED';
    await expect(house.imports.cancel('mine')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringMatching(/^the import mine ends as soon as it can: .* is SUSPENDED/) as string,
    });
    house.fake.state = 'ONLINE';
    goOn();
    expect(await house.ended('mine')).toMatchObject({ state: 'cancelled' });
    await house.expectNothingLeft();
  });

  it('while it is downloaded, and kept', async () => {
    const url = await scene.serve((_, response) => response.write(Buffer.alloc(MiB, 1)));
    await house.imports.start(wanted({ id: 'mine' }), url);
    await expect.poll(() => house.imports.get('mine').done).toBe(MiB);
    expect(house.imports.get('mine')).toMatchObject({ state: 'downloading' });
    expect(await house.imports.cancel('mine')).toBe(true);
    await house.expectNothingLeft();
  });
});
