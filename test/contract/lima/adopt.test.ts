import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createRun } from '../../../src/host/run.ts';
import { compactDisk } from '../../../src/storage/compact.ts';
import { surveyUsage } from '../../../src/storage/usage.ts';
import { adopt } from '../../../src/vm/adopt.ts';
import { protect, remove } from '../../../src/vm/lifecycle.ts';
import { inspect } from '../../../src/vm/store.ts';
import type { TestContext } from '../../support/context.ts';
import { machine, LimaHouse, recorded, versions } from './support.ts';

let house: LimaHouse;
let theirs: string;

/** A user's home of Lima with a stopped machine in it, whose disk is a real one. */
beforeEach(async () => {
  house = await LimaHouse.open();
  theirs = join(house.root, 'their lima');
  const folder = join(theirs, machine);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'lima.yaml'), 'images: []\n');
  await writeFile(join(folder, 'raw'), Buffer.alloc(4 * 2 ** 20, 'text'));
  const made = spawnSync('qemu-img', ['convert', '-O', 'qcow2', join(folder, 'raw'), join(folder, 'disk')]);
  expect(made.status).toBe(0);
});
afterEach(() => house.close());

async function adopted(): Promise<TestContext> {
  const listing = {
    name: machine,
    status: 'Stopped',
    dir: join(theirs, machine),
    cpus: 3,
    memory: 2 ** 30,
    disk: 4 * 2 ** 20,
  };
  const list = await house.lima(['list', '--json', machine], undefined, {
    stdout: `${JSON.stringify(listing)}\n`,
    env: { LIMA_HOME: theirs },
  });
  const ctx = await house.play({ limactl: [list] }, { env: { LIMA_HOME: theirs } });
  await adopt(ctx, machine);
  return ctx;
}

/** Names and contents of everything in the user's home. */
async function fingerprint(): Promise<string> {
  const hash = createHash('sha256');
  const folder = join(theirs, machine);
  for (const name of (await readdir(folder)).sort())
    hash.update(name).update(await readFile(join(folder, name)));
  return hash.digest('hex');
}

describe('an adopted Lima instance', () => {
  it('is one of ours from then on, and nothing of it is changed, nor when it is let go again', async () => {
    const before = await fingerprint();
    const ctx = await adopted();
    const found = await inspect(ctx, machine);
    expect(found).toMatchObject({ status: 'stopped', instance: { spec: { cpus: 3, memory: 2 ** 30 } } });
    await protect(ctx, machine, true);
    await protect(ctx, machine, false);
    expect(await remove(ctx, machine, { force: true })).toBe(false);
    expect(await inspect(ctx, machine)).toBeUndefined();
    expect(await fingerprint()).toBe(before);
  });

  it('needs nothing written in the home of Lima', async () => {
    const folders = [theirs, join(theirs, machine)];
    const changed = (): Promise<number[]> =>
      Promise.all(folders.map(async (folder) => (await stat(folder)).mtimeMs));
    // Root may write there all the same, and is not to.
    for (const folder of folders) await chmod(folder, 0o500);
    const before = await changed();
    const ctx = await adopted();
    expect((await surveyUsage(ctx, { names: [], all: true })).machines).toHaveLength(1);
    expect(await remove(ctx, machine, { force: true })).toBe(false);
    expect(await changed()).toEqual(before);
    for (const folder of folders) await chmod(folder, 0o700);
  });

  it.each(versions)(
    'is not one that limactl %s can make nothing of, of which nothing is kept',
    async (version) => {
      const broken = await house.lima(['list', '--json', machine], undefined, {
        stdout: await recorded(version, 'list-broken.json'),
        env: { LIMA_HOME: theirs },
      });
      const ctx = await house.play({ limactl: [broken] }, { env: { LIMA_HOME: theirs } });
      await expect(adopt(ctx, machine)).rejects.toMatchObject({
        reason: 'process',
        message: `Lima's instance "m1" is damaged, or in a form that zfsdev does not know`,
        hint: 'limactl list m1',
      });
      expect(await inspect(ctx, machine)).toBeUndefined();
    },
  );

  it('is shown once by usage --all', async () => {
    const ctx = await adopted();
    const { machines } = await surveyUsage(ctx, { names: [], all: true });
    expect(machines.map(({ name, driver }) => ({ name, driver }))).toEqual([
      { name: machine, driver: 'lima' },
    ]);
  });

  it('can be compacted', async () => {
    const ctx = await adopted();
    // limactl has no part in it, so the programs may be the real ones.
    const real = { ...ctx, run: createRun({ env: process.env, dryRun: false }) };
    const done = await compactDisk(real, machine, { dropSnapshots: false, overcommit: true });
    expect(done.after).toBeLessThan(done.before);
  });

  it('must be there, and must not be one of ours already', async () => {
    const ctx = await adopted();
    await expect(adopt(ctx, machine)).rejects.toMatchObject({ reason: 'already-exists' });
    const elsewhere = await house.play({}, { env: { LIMA_HOME: join(house.root, 'none') } });
    await expect(adopt(elsewhere, machine)).rejects.toMatchObject({ reason: 'not-found' });
  });
});
