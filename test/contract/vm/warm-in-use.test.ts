import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../../src/host/deadline.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { Driver } from '../../../src/vm/driver.ts';
import { driverFor } from '../../../src/vm/drivers.ts';
import { warmKeyOf } from '../../../src/vm/warm-key.ts';
import { lock } from '../../../src/host/lock.ts';
import { condemnForked, inspectWarm, publishWarm, warmFormat, warmLock } from '../../../src/vm/warm-store.ts';
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

describe('a warm state that a fork has found damaged', () => {
  const damaged = { key: '', created: '2026-01-01T00:00:00.000Z' };

  /** Makes it whole, as far as a look tells that does not read its files. */
  async function saved(created: string): Promise<void> {
    const paths = ctx.paths.warmState(key);
    await writeFile(paths.devices, 'devices');
    const record = async (path: string): Promise<object> => ({
      size: (await readFile(path)).length,
      data: [],
      crc32: 0,
      seen: '',
    });
    const files = {
      memory: await record(paths.memory),
      devices: await record(paths.devices),
      disk: await record(paths.disk),
    };
    const said = {
      template: '',
      imageDigest: '',
      accelerator: 'tcg',
      qemu: '',
      cpu: '',
      mac: '',
      agentKey: '',
    };
    const sizes = { memoryBytes: 0, diskBytes: 0, diskBound: 0 };
    await writeFile(
      paths.manifest,
      JSON.stringify({ format: warmFormat, key, created, ...said, ...sizes, ...files }),
    );
    expect(await inspectWarm(ctx, key)).toMatchObject({ state: 'whole' });
  }

  beforeEach(() => {
    damaged.key = key;
  });

  it('is set aside, but for the disk that machines stand on', async () => {
    await saved(damaged.created);
    await expect(condemnForked(ctx, damaged)).resolves.toEqual(['old']);
    expect(existsSync(base)).toBe(true);
    expect(existsSync(ctx.paths.warmState(key).memory)).toBe(false);
    await expect(inspectWarm(ctx, key)).resolves.toMatchObject({ state: 'broken' });
  });

  it('leaves what another has saved in its place since', async () => {
    await saved('2026-01-01T00:00:01.000Z');
    await expect(condemnForked(ctx, damaged)).resolves.toBeUndefined();
    await expect(inspectWarm(ctx, key)).resolves.toMatchObject({ state: 'whole' });
  });

  it('stays as long as another is making it, or looks what becomes of it', async () => {
    await saved(damaged.created);
    const interrupt = new AbortController();
    const held = await lock(warmLock(ctx, key), 'it');
    try {
      const condemned = condemnForked({ ...ctx, signal: interrupt.signal }, damaged);
      interrupt.abort();
      await expect(condemned).rejects.toMatchObject({ reason: 'interrupted' });
    } finally {
      await held.release();
    }
    await expect(inspectWarm(ctx, key)).resolves.toMatchObject({ state: 'whole' });
  });
});

describe('a warm state that a look finds damaged', () => {
  it('is not set aside while another is at it', async () => {
    const interrupt = new AbortController();
    const held = await lock(warmLock(ctx, key), 'it');
    try {
      const driver = driverFor(ctx, spec);
      const options = { deadline: () => deadlineIn(60_000), overcommit: true, cold: false };
      // Whoever waits for the lock has not touched anything yet.
      const paths = { ...ctx.paths, lock: (name: string) => (interrupt.abort(), ctx.paths.lock(name)) };
      const waiting = warmStateFor({ ...ctx, paths, signal: interrupt.signal }, driver, spec, options);
      await expect(waiting).rejects.toMatchObject({ reason: 'interrupted' });
    } finally {
      await held.release();
    }
    expect(existsSync(ctx.paths.warmState(key).memory)).toBe(true);
  });
});
