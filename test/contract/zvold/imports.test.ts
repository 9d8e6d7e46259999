import { writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inventory } from '../../../src/zvold/keeper.ts';
import { createSnapshot } from '../../../src/zvold/snapshots.ts';
import { createTemplate } from '../../../src/zvold/templates.ts';
import { createVolume } from '../../../src/zvold/volumes.ts';
import { ImportScene, KiB, sample, sampleSum, wanted } from './import-scene.ts';
import { recovered, type ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

describe('raw content of a file', () => {
  beforeEach(() => writeFile(scene.path('disk.raw'), sample));

  it('becomes a template that is cloned from', async () => {
    const { id } = await house.imports.start(wanted({ sha256: sampleSum }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({
      state: 'completed',
      done: sample.length,
      total: sample.length,
    });
    await scene.expectSample(`tank/.zvold/${id}`);
    expect(await inventory(house.keeper)).toMatchObject({
      templates: [{ name: 'disk', id, clones: [] }],
      volumes: [],
      unfinished: [],
    });
  });

  it('becomes a volume, larger if asked', async () => {
    const { id } = await house.imports.start(
      wanted({ target: 'volume', size: 8192 * KiB }),
      scene.path('disk.raw'),
    );
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(await inventory(house.keeper)).toMatchObject({
      volumes: [{ name: 'disk', id, size: 8192 * KiB }],
      templates: [],
    });
  });

  it('is made once for one id', async () => {
    const first = await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    expect((await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'))).id).toBe(first.id);
    await expect(
      house.imports.start(wanted({ id: 'mine', name: 'other' }), scene.path('disk.raw')),
    ).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await house.ended('mine');
    await expect(house.imports.start(wanted(), scene.path('disk.raw'))).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
  });

  it.each([
    [{ name: 'other' }, 'of the name "disk"; this one is of the name "other"'],
    [{ target: 'volume' }, 'for a template; this one is for a volume'],
    [{ sha256: sampleSum.toUpperCase() }, `without a checksum; this one is with the checksum ${sampleSum}`],
    [{ size: 8192 * KiB }, `without a size; this one is of the size ${8192 * KiB}`],
    [
      { blockSize: 4096, sha256: sampleSum },
      `with blocks of 16384 bytes, without a checksum; this one is with blocks of 4096 bytes, with the checksum ${sampleSum}`,
    ],
  ] as const)('is not taken for another one of the same id: %o', async (more, words) => {
    const source = scene.path('disk.raw');
    await house.imports.start(wanted({ id: 'mine' }), source);
    const other = { code: 'ALREADY_EXISTS', message: `there is an import mine already, ${words}` };
    await expect(house.imports.start(wanted({ id: 'mine', ...more }), source)).rejects.toMatchObject(other);
    await house.ended('mine');
    await expect(house.imports.start(wanted({ id: 'mine', ...more }), source)).rejects.toMatchObject(other);
  });

  it('of another source is not taken for that of the same id, and the same as before is', async () => {
    const source = scene.path('disk.raw');
    const same = wanted({ id: 'mine', sha256: sampleSum, size: 8192 * KiB - 5 });
    await house.imports.start(same, source);
    await house.ended('mine');
    const other = scene.path('other.raw');
    await writeFile(other, sample);
    await expect(house.imports.start(same, other)).rejects.toThrow(`of ${source}; this one is of ${other}`);
    // Also by what a later daemon knows of it.
    const next = house.anew();
    expect(await next.start({ ...same, sha256: sampleSum.toUpperCase() }, source)).toMatchObject({
      id: 'mine',
      state: 'completed',
    });
  });

  it('with a wrong checksum leaves nothing', async () => {
    const { id } = await house.imports.start(wanted({ sha256: '0'.repeat(64) }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({
      state: 'failed',
      error: expect.stringContaining(`has the checksum ${sampleSum}`) as string,
    });
    await house.expectNothingLeft();
  });

  it('that is larger than what was asked for leaves nothing', async () => {
    const { id } = await house.imports.start(wanted({ size: 16 * KiB }), scene.path('disk.raw'));
    expect((await house.ended(id)).error).toContain('more than the 16384 that were asked for');
    await house.expectNothingLeft();
  });
});

it.each(['volume', 'template'] as const)('an import ends in no second %s of one id', async (target) => {
  await writeFile(scene.path('disk.raw'), sample);
  let goOn = (): void => undefined;
  const reached = new Promise<void>((resolve) => {
    house.fake.before = (argv) => {
      if (!argv.includes('-V')) return undefined;
      house.fake.before = () => undefined;
      resolve();
      return new Promise((done) => (goOn = done));
    };
  });
  await house.imports.start(wanted({ id: 'mine', target }), scene.path('disk.raw'));
  await reached;
  const isVolume = target === 'volume';
  const other = { name: 'other', volume: 'other', snapshot: 'first', size: 1024 * KiB, thick: false };
  await createVolume(house.keeper, { ...other, id: isVolume ? 'mine' : '' });
  await createSnapshot(house.keeper, 'other', 'first', '');
  if (!isVolume) await createTemplate(house.keeper, { ...other, id: 'mine' });
  goOn();
  expect(await house.ended('mine')).toMatchObject({ state: 'failed', code: 'ALREADY_EXISTS' });
  await house.expectNothingLeft('tank/other', 'tank/other@first');
});

describe('a daemon that was killed', () => {
  const steps = ['zfs create -s', 'zfs snapshot', 'zfs inherit'];

  it.each(steps)('at "%s" leaves what the next one tidies up, and says so', async (step) => {
    await writeFile(scene.path('disk.raw'), sample);
    house.fake.before = (argv) =>
      argv.join(' ').startsWith(step) ? new Promise(() => undefined) : Promise.resolve();
    const { id } = await house.imports.start(wanted(), scene.path('disk.raw'));
    await expect.poll(() => house.fake.calls.some((words) => words.startsWith(step))).toBe(true);
    // Nothing of it goes on: its next step never comes back.
    house.fake.before = () => undefined;
    const next = house.anew();
    const told = await recovered(next);
    expect(told[0]).toContain(`the import ${id} of "disk" was cut off`);
    expect(next.get(id)).toMatchObject({ state: 'failed', error: 'zvold ended in the middle of it' });
    expect(await inventory(house.keeper)).toEqual({ volumes: [], templates: [], unfinished: [] });
    expect(await recovered(next)).toEqual([]);
  });

  it('after the last step, before its journal knew, is told that it was through', async () => {
    await writeFile(scene.path('disk.raw'), sample);
    const through = new Promise<void>((resolve) => {
      house.fake.before = async (argv) => {
        if (argv[1] !== 'inherit') return;
        house.fake.before = () => undefined;
        await house.fake.command([...argv] as [string, ...string[]], { deadline: 1 });
        resolve();
        await new Promise(() => undefined);
      };
    });
    const { id } = await house.imports.start(wanted(), scene.path('disk.raw'));
    await through;
    house.fake.before = () => undefined;
    const next = house.anew();
    expect((await recovered(next))[0]).toContain(`the import ${id} of "disk" was through`);
    expect(next.get(id)).toMatchObject({ state: 'completed', error: '' });
    expect((await inventory(house.keeper)).templates).toMatchObject([{ id, name: 'disk' }]);
  });
});
