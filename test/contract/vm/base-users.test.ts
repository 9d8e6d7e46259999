import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { recipeOf } from '../../../src/image/recipe.ts';
import { builtImage } from '../../../src/template/spec.ts';
import { driverFor } from '../../../src/vm/drivers.ts';
import { imageUsers } from '../../../src/vm/images.ts';
import { newState, type State } from '../../../src/vm/state.ts';
import { removeWarm, warmUsers } from '../../../src/vm/warm-store.ts';
import type { TestContext } from '../../support/context.ts';
import { call } from '../../support/call.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { disk, specOf, StorageScene } from './storage-scene.ts';

const digest = 'a'.repeat(64);
let scene: StorageScene;
let ctx: TestContext;
let image: string;
let warm: string;

beforeEach(async () => {
  scene = await StorageScene.open();
  ctx = scene.ctx;
  image = join(ctx.paths.images, digest, 'disk.qcow2');
  warm = join(ctx.paths.warm, digest, 'disk.qcow2');
  for (const path of [image, warm]) await mkdir(dirname(path), { recursive: true });
  call('qemu-img', 'create', '-q', '-f', 'qcow2', image, '64M');
  overlay(warm, image);
});
afterEach(() => scene.close());

function overlay(path: string, base: string): void {
  call('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', path, '64M');
}

describe('an image and a warm state are in use', () => {
  it.each(['spec', 'state'] as const)('by a machine whose %s is damaged', async (file) => {
    const paths = await stoppedInstance(ctx.paths, 'one');
    overlay(paths.disk, warm);
    await writeFile(paths[file], '{');
    expect([...(await imageUsers(ctx))]).toEqual([[digest, ['one']]]);
    expect([...(await warmUsers(ctx))]).toEqual([[digest, ['one']]]);
    await expect(removeWarm(ctx, digest)).rejects.toMatchObject({
      reason: 'wrong-state',
      message: expect.stringContaining('one stands on the warm state') as string,
    });
    expect(await readdir(dirname(warm))).toEqual(['disk.qcow2']);
  });

  it('by a file of the user that a machine has as a disk', async () => {
    overlay(scene.at('mine.qcow2'), image);
    const mine = disk('mine', { file: scene.at('mine.qcow2') });
    const { spec, state } = ctx.paths.instance((await scene.machine('one', [mine])).name);
    expect([...(await imageUsers(ctx)).keys()]).toContain(digest);
    // Also where only its state can't be read.
    await writeFile(state, '{');
    await writeFile(spec, JSON.stringify(await specOf('one', mine)));
    expect([...(await imageUsers(ctx))]).toEqual([[digest, ['one']]]);
  });

  it.each([
    ['nested', (base: string) => ({ driver: 'qcow2', file: { driver: 'file', filename: base } })],
    ['flat', (base: string) => ({ driver: 'qcow2', 'file.driver': 'file', 'file.filename': base })],
  ])('by a disk whose backing file is named by options that are %s', async (_, options) => {
    const { disk: root } = await stoppedInstance(ctx.paths, 'one');
    call('qemu-img', 'create', '-q', '-f', 'qcow2', root, '64M');
    const name = `json:${JSON.stringify(options(warm))}`;
    call('qemu-img', 'rebase', '-u', '-b', name, '-F', 'qcow2', root);
    // It is a disk: QEMU finds the chain by it.
    expect(call('qemu-img', 'info', '--backing-chain', root)).toContain(image);
    expect([...(await imageUsers(ctx))]).toEqual([[digest, ['one']]]);
    await expect(removeWarm(ctx, digest)).rejects.toMatchObject({ reason: 'wrong-state' });
    expect(await readdir(dirname(warm))).toEqual(['disk.qcow2']);
  });

  it('and are not built anew under a machine, though they are broken', async () => {
    const spec = await specOf('new');
    const recipe = await recipeOf(builtImage(spec));
    const folder = join(ctx.paths.images, recipe.digest);
    await mkdir(folder);
    const base = join(folder, 'disk.qcow2');
    call('qemu-img', 'create', '-q', '-f', 'qcow2', base, '64M');
    const { disk: root } = await stoppedInstance(ctx.paths, 'one', { imageDigest: recipe.digest });
    overlay(root, base);
    const state: State = { ...newState('qemu'), imageDigest: recipe.digest };
    await stoppedInstance(ctx.paths, 'new', state);
    const before = await readFile(base);
    const created = driverFor(ctx, spec).create(spec, state, {});
    await expect(created).rejects.toMatchObject({
      reason: 'wrong-state',
      message: expect.stringContaining(
        'can not be replaced though it is broken (manifest.json is missing)',
      ) as string,
      // Not the one that is being made, which has no disk yet.
      data: { users: ['one'] },
    });
    expect((await readFile(base)).equals(before)).toBe(true);
  });

  it('once by a machine that stands on them and says so', async () => {
    const { disk: root } = await stoppedInstance(ctx.paths, 'one', { imageDigest: digest, warm: digest });
    overlay(root, warm);
    expect([...(await imageUsers(ctx))]).toEqual([[digest, ['one']]]);
    expect([...(await warmUsers(ctx))]).toEqual([[digest, ['one']]]);
  });
});
