import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../../src/host/deadline.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { Driver } from '../../../src/vm/driver.ts';
import { driverFor } from '../../../src/vm/drivers.ts';
import { warmKeyOf } from '../../../src/vm/warm-key.ts';
import { publishWarm } from '../../../src/vm/warm-store.ts';
import { warmStateFor } from '../../../src/vm/warm.ts';
import { call } from '../../support/call.ts';
import type { TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { specOf, StorageScene } from './storage-scene.ts';

let scene: StorageScene;
let ctx: TestContext;
let spec: Spec;
let key: string;
/** The warm state's disk, on which the machine "old" stands. */
let base: string;

beforeEach(async () => {
  scene = await StorageScene.open();
  ctx = scene.ctx;
  const { storage, ...rest } = await specOf('new');
  expect(storage).toEqual([]);
  spec = { ...rest, accelerator: 'tcg' };
  ({ key } = await warmKeyOf(ctx, spec));
  const paths = ctx.paths.warmState(key);
  base = paths.disk;
  await mkdir(paths.folder, { recursive: true });
  call('qemu-img', 'create', '-q', '-f', 'qcow2', base, '64M');
  call('qemu-io', '-c', 'write -P 7 0 1M', base);
  await writeFile(paths.memory, 'memory');
  await writeFile(paths.manifest, '{');
  const { disk } = await stoppedInstance(ctx.paths, 'old', { warm: key });
  call('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', disk, '64M');
});
afterEach(() => scene.close());

describe('a warm state that can not be used, and on which a machine stands,', () => {
  it('is not made anew in its place: its machines boot instead, and are told', async () => {
    const before = await readFile(base);
    const unexpected = (): Promise<never> => Promise.reject(new Error('a machine was made'));
    const driver: Driver = { ...driverFor(ctx, spec), create: unexpected, saveWarm: unexpected };
    const options = { deadline: () => deadlineIn(60_000), overcommit: true, cold: false };
    await expect(warmStateFor(ctx, driver, spec, options)).resolves.toBeUndefined();
    expect((await readFile(base)).equals(before)).toBe(true);
    expect(existsSync(ctx.paths.warmState(key).memory)).toBe(false);
    const told = ctx.events.flatMap((event) => (event.type === 'notice' ? [event.text] : []));
    expect(told).toEqual([
      expect.stringMatching(/can't be used .*: booting instead, until zfsdev delete old$/),
    ]);
  });

  it('is not replaced by one that is whole', async () => {
    const before = await readFile(base);
    const building = join(ctx.paths.warm, '.building');
    await mkdir(building);
    await writeFile(join(building, 'disk.qcow2'), 'another');
    await expect(publishWarm(ctx, key, building)).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining('old stands on what is left') as string,
    });
    expect((await readFile(base)).equals(before)).toBe(true);
  });

  it('gives way once nobody stands on it', async () => {
    await driverFor(ctx, spec).remove((await scene.machine('old', [])).name);
    const building = join(ctx.paths.warm, '.building');
    await mkdir(building);
    await writeFile(join(building, 'disk.qcow2'), 'another');
    await publishWarm(ctx, key, building);
    expect(await readFile(base, 'utf8')).toBe('another');
    expect(existsSync(join(dirname(base), 'memory'))).toBe(false);
  });
});
