import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { ownFolder, property } from '../../../src/zvold/inventory.ts';
import { inventory } from '../../../src/zvold/keeper.ts';
import { ImportScene, MiB, wanted } from './import-scene.ts';
import { recovered, type ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
  await writeFile(scene.path('disk.raw'), randomBytes(MiB));
});
afterEach(() => scene.close());

/** Makes what a daemon that was killed left of an import. */
async function leftover(id: string): Promise<void> {
  const dataset = `${house.fake.pool}/${ownFolder}/${id}`;
  const marks = [`${property.import}=${id}`, `${property.volumeId}=${id}`].flatMap((each) => ['-o', each]);
  const words = ['create', '-s', '-b', '16384', '-V', String(MiB), ...marks, dataset];
  await house.fake.command(['zfs', ...words], { deadline: 1 });
}

/** Keeps calls waiting that begin so, each until it is let go on. */
class Gate {
  readonly #goOn = new Map<string, () => void>();
  readonly #steps: readonly string[];

  constructor(...steps: readonly string[]) {
    this.#steps = steps;
    const waited = new Set<string>();
    house.fake.before = (argv) => {
      const step = this.#steps.find((each) => argv.join(' ').startsWith(each));
      if (step === undefined || waited.has(step)) return undefined;
      waited.add(step);
      return new Promise((resolve) => this.#goOn.set(step, resolve));
    };
  }

  async reached(step: string): Promise<void> {
    await expect.poll(() => this.#goOn.has(step), { interval: 5 }).toBe(true);
  }

  pass(step: string): void {
    this.#goOn.get(step)?.();
  }
}

describe('what tidies up', () => {
  it('leaves an import alone that begins and ends meanwhile', async () => {
    await leftover('old');
    const gate = new Gate('zfs list', 'zfs snapshot', 'zfs destroy');
    const told = recovered(house.imports);
    await gate.reached('zfs list');
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await gate.reached('zfs snapshot');
    gate.pass('zfs list');
    await gate.reached('zfs destroy');
    gate.pass('zfs snapshot');
    expect(await house.ended('mine')).toMatchObject({ state: 'completed' });
    gate.pass('zfs destroy');
    expect(await told).toEqual(['the unfinished tank/.zvold/old was destroyed']);
    expect(await inventory(house.keeper)).toMatchObject({ templates: [{ id: 'mine' }], unfinished: [] });
  });

  it('takes an import for none of the exports, whatever its id is', async () => {
    const gate = new Gate('zfs snapshot');
    await house.imports.start(wanted({ id: 'export-mine' }), scene.path('disk.raw'));
    await gate.reached('zfs snapshot');
    expect(await recovered(house.exports)).toEqual([]);
    gate.pass('zfs snapshot');
    expect(await house.ended('export-mine')).toMatchObject({ state: 'completed' });
    await leftover('export-old');
    expect(await recovered(house.imports)).toEqual(['the unfinished tank/.zvold/export-old was destroyed']);
  });

  it('goes on to the others where one leftover stays, and says both', async () => {
    for (const id of ['one', 'two']) await leftover(id);
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy' && argv.at(-1) === 'tank/.zvold/one')
        throw new ZvolError('INTERNAL', 'something is wrong');
    };
    const told: string[] = [];
    const work = house.imports.recover((words) => void told.push(words));
    await expect(work).rejects.toMatchObject({ code: 'INTERNAL', message: 'something is wrong' });
    expect(told).toEqual([
      'tank/.zvold/one could not be destroyed: something is wrong',
      'the unfinished tank/.zvold/two was destroyed',
    ]);
    house.fake.before = () => undefined;
    expect(await recovered(house.imports)).toEqual(['the unfinished tank/.zvold/one was destroyed']);
    await house.expectNothingLeft();
  });
});
