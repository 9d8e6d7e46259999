import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { remove, start } from '../../../src/vm/lifecycle.ts';
import { inspect } from '../../../src/vm/store.ts';
import { LimaHouse, machine, patience } from './support.ts';

let house: LimaHouse;
afterEach(() => house.close());

const noOptions = { deadline: () => patience, overcommit: true };

describe("what isn't zfsdev's own", () => {
  beforeEach(async () => {
    house = await LimaHouse.open();
  });

  it('is not taken over by up: another machine under the name', async () => {
    await house.foreignMachine();
    const ctx = await house.play({ limactl: [await house.asksVersion()] });
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'already-exists',
      message: 'Lima has an instance "m1" that zfsdev did not make',
    });
    expect(await readFile(join(house.folder, 'disk'), 'utf8')).toBe('precious');
    expect(await readdir(ctx.paths.instances)).toEqual([]);
  });

  it('is not removed by an up that fails: a folder that is no machine', async () => {
    await mkdir(house.folder, { recursive: true });
    await writeFile(join(house.folder, 'notes'), 'precious');
    const ctx = await house.play({ limactl: [await house.asksVersion()] });
    await expect(house.up(ctx)).rejects.toMatchObject({ reason: 'already-exists' });
    expect(await readFile(join(house.folder, 'notes'), 'utf8')).toBe('precious');
  });

  it('is not deleted: a machine that was put in the place of ours', async () => {
    await house.stoppedMachine();
    await rm(house.folder, { recursive: true });
    await house.foreignMachine();
    const ctx = await house.ctx;
    expect(await inspect(ctx, machine)).toMatchObject({
      status: 'broken',
      reason: 'Lima\'s "m1" is another machine than the one zfsdev made',
    });
    await remove(ctx, machine, { force: true });
    expect(await inspect(ctx, machine)).toBeUndefined();
    expect(await readFile(join(house.folder, 'disk'), 'utf8')).toBe('precious');
  });
});

describe('a damaged state', () => {
  beforeEach(async () => {
    house = await LimaHouse.open();
  });

  it('whose folder in Lima is gone is told as broken, and deleted without limactl', async () => {
    await house.stoppedMachine();
    await rm(house.folder, { recursive: true });
    const ctx = await house.ctx;
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'broken', reason: 'Lima no longer has it' });
    await remove(ctx, machine, { force: false });
    expect(await inspect(ctx, machine)).toBeUndefined();
  });

  it.each([
    ['is gone', 'Lima no longer has it', () => Promise.resolve()],
    [
      "is somebody else's now",
      'Lima\'s "m1" is another machine than the one zfsdev made',
      () => house.foreignMachine(),
    ],
  ])('of a start that was killed, whose machine %s, is not started', async (_, reason, replace) => {
    await house.stoppedMachine();
    const { state } = (await house.ctx).paths.instance(machine);
    const killed = JSON.parse(await readFile(state, 'utf8')) as object;
    await writeFile(state, JSON.stringify({ ...killed, phase: 'starting' }));
    await rm(house.folder, { recursive: true });
    await replace();
    const failure = { reason: 'wrong-state', message: `"m1" is broken: ${reason}` };
    // Without limactl: one of this name that it lacks it would make, from a template of its own.
    await expect(start(await house.ctx, machine, noOptions)).rejects.toMatchObject(failure);
    const ctx = await house.play({ limactl: [await house.asksVersion()] });
    await expect(house.up(ctx)).rejects.toMatchObject(failure);
    await remove(ctx, machine, { force: true });
    expect(await inspect(ctx, machine)).toBeUndefined();
  });

  it('of a home with a folder that is no machine, at which limactl fails only after it has deleted', async () => {
    await house.stoppedMachine();
    const deletes = { ...(await house.deletes()), exitCode: 1 };
    const ctx = await house.play({ limactl: [deletes] });
    await remove(ctx, machine, { force: false });
    expect(await inspect(ctx, machine)).toBeUndefined();
  });

  it('of a creation that was killed is cleared away by the next up', async () => {
    const pid = house.process('ha.pid');
    await house.runningMachine();
    const { state } = (await house.ctx).paths.instance(machine);
    const killed = JSON.parse(await readFile(state, 'utf8')) as object;
    await writeFile(state, JSON.stringify({ ...killed, phase: 'creating' }));
    const limactl = [
      await house.asksVersion(),
      await house.deletes(),
      await house.creates(),
      await house.starts(pid),
    ];
    const ctx = await house.play({ limactl, ssh: house.asksProvisioning() });
    expect(await house.up(ctx)).toMatchObject({ outcome: 'created' });
    expect((await house.limactlCalls())[1]).toBe('delete --force m1');
  });

  it('whose home can not be written is told before limactl is asked for anything', async () => {
    const ctx = await house.play({ limactl: [await house.asksVersion()] });
    await mkdir(dirname(ctx.paths.lima), { recursive: true });
    await writeFile(ctx.paths.lima, '');
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'files',
      hint: 'make it writable, or point ZFSDEV_HOME at a folder of yours',
    });
    expect(await readdir(ctx.paths.instances)).toEqual([]);
  });
});
