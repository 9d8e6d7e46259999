import { rm, truncate, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytes, GiB, MiB } from '../../../src/core/bytes.ts';
import { filesystemOf } from '../../../src/host/free-space.ts';
import type { DiskDevice, StorageDevice } from '../../../src/template/storage.ts';
import { reserveInstance } from '../../../src/vm/admission.ts';
import { driverFor } from '../../../src/vm/drivers.ts';
import type { State } from '../../../src/vm/state.ts';
import { storageClaims } from '../../../src/vm/storage-claims.ts';
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
  it('is as large at most as the budget counts', async () => {
    for (const clusterSize of [undefined, 512, 2 * MiB]) {
      const format = clusterSize === undefined ? {} : { format: { clusterSize: bytes(clusterSize) } };
      const [claim] = await storageClaims(
        ctx,
        await specOf('one', disk('a', { size: bytes(GiB), ...format })),
      );
      const layout =
        clusterSize === undefined ? 'cluster_size=64k,extended_l2=on' : `cluster_size=${clusterSize}`;
      const measured = call(
        'qemu-img',
        'measure',
        '--output=json',
        '-O',
        'qcow2',
        '-o',
        layout,
        '--size',
        `${GiB}`,
      );
      const bound = (JSON.parse(measured) as { 'fully-allocated': number })['fully-allocated'];
      expect(claim?.bound).toBeGreaterThanOrEqual(bound);
      expect(claim?.bound).toBeLessThan(bound * 1.05);
    }
  });

  it('is refused in the sum of all disks, where each of them alone would fit', async () => {
    const { free } = await filesystemOf(ctx.paths.home);
    const size = bytes(Math.floor((free * 0.6) / MiB) * MiB);
    const tight: TestContext = { ...ctx, env: { ...ctx.env, ZFSDEV_RESERVE: '1B' } };
    const reserve = async (...storage: StorageDevice[]): Promise<State> => {
      const spec = await specOf('one', ...storage);
      const driver = { ...driverFor(tight, spec), claims: () => storageClaims(tight, spec) };
      return reserveInstance(tight, driver, spec, { overcommit: false });
    };
    const raw = (name: string): DiskDevice =>
      disk(name, { type: 'raw', size, file: scene.at('far', `${name}.raw`) });
    await expect(reserve(raw('a'), raw('b'))).rejects.toMatchObject({
      reason: 'no-space',
      detail: expect.stringContaining('the disk "b" of one can still grow by') as string,
    });
    await expect(reserve(raw('a'))).resolves.toMatchObject({ phase: 'creating' });
    // And in the sum over machines: the first one's disk counts before it is there.
    const other = await specOf('two', raw('c'));
    const driver = { ...driverFor(tight, other), claims: () => storageClaims(tight, other) };
    await expect(reserveInstance(tight, driver, other, { overcommit: false })).rejects.toMatchObject({
      reason: 'no-space',
    });
  });
});

describe('a file that is there', () => {
  it('counts in the budget with what it can still grow, wherever it lies', async () => {
    await writeFile(scene.at('a.raw'), Buffer.alloc(4 * MiB, 1));
    await truncate(scene.at('a.raw'), 64 * MiB);
    const claims = await storageClaims(
      ctx,
      await specOf(
        'one',
        disk('a', { type: 'raw', file: scene.at('a.raw') }),
        disk('b', { file: '/dev/null/x', readonly: true }),
      ),
    );
    expect(claims).toEqual([
      { what: 'the disk "a" of one', path: ctx.folder, bound: 64 * MiB, allocated: 4 * MiB },
    ]);
    await rm(scene.at('a.raw'));
  });
});
