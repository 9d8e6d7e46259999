import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImportScene, MiB, nothing, wanted } from './import-scene.ts';
import { recovered, type ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

describe('the queue', () => {
  /** Two imports that wait for a server for ever, so that nobody else has a turn. */
  async function occupy(): Promise<string[]> {
    const url = await scene.serve(() => undefined);
    const both = ['one', 'two'].map((name) => house.imports.start(wanted({ name, id: name }), url));
    return (await Promise.all(both)).map(({ id }) => id);
  }

  it('is left at once by an import that is cancelled, and goes on without it', async () => {
    const [first = '', second = ''] = await occupy();
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const waiting = await house.imports.start(wanted({ name: 'three' }), scene.path('disk.raw'));
    const next = await house.imports.start(wanted({ name: 'four' }), scene.path('disk.raw'));
    expect(await house.imports.cancel(waiting.id)).toBe(true);
    expect(house.imports.get(waiting.id)).toMatchObject({ state: 'cancelled', error: '' });
    expect(house.imports.get(next.id)).toMatchObject({ state: 'pending' });
    await house.imports.cancel(first);
    expect(await house.ended(next.id)).toMatchObject({ state: 'completed' });
    await house.imports.cancel(second);
  });

  it('is left by an upload that is cancelled, or whose client goes', async () => {
    await occupy();
    const upload = house.imports.upload(wanted({ id: 'mine' }), nothing());
    await expect.poll(() => house.imports.list(false).length).toBe(3);
    expect(await house.imports.cancel('mine')).toBe(true);
    expect(await upload).toMatchObject({ state: 'cancelled' });
    const client = new AbortController();
    const other = house.imports.upload(wanted({ id: 'other' }), nothing(), client.signal);
    await expect.poll(() => house.imports.list(false).length).toBe(3);
    client.abort();
    expect(await other).toMatchObject({ state: 'cancelled', error: 'its client went away' });
    await house.expectNothingLeft();
  });

  it('ends with the daemon, which is told apart from being cancelled; downloads are the next one’s', async () => {
    const [first = ''] = await occupy();
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const waiting = await house.imports.start(wanted({ name: 'three' }), scene.path('disk.raw'));
    await house.imports.close();
    expect(house.imports.get(waiting.id)).toMatchObject({
      state: 'failed',
      error: 'zvold was ended in the middle of it',
    });
    expect(house.imports.get(first)).toMatchObject({ state: 'downloading' });
    expect(await recovered(house.anew())).toHaveLength(2);
  });

  it('gives the same import for the same id, whenever it is asked', async () => {
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const all = await Promise.all(
      Array.from({ length: 4 }, () => house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'))),
    );
    expect(all.map(({ id }) => id)).toEqual(['mine', 'mine', 'mine', 'mine']);
    expect(await house.ended('mine')).toMatchObject({ state: 'completed' });
    expect(house.fake.calls.filter((words) => words.startsWith('zfs create -s'))).toHaveLength(1);
  });
});

describe('a client', () => {
  it('that sends nothing is given up, and its turn is another’s', async () => {
    house.stallAfter = 20;
    house.anew();
    async function* some(): AsyncGenerator<Buffer> {
      yield Buffer.alloc(MiB, 1);
      yield* nothing();
    }
    const uploads = [nothing(), some(), some()].map((bytes, index) =>
      house.imports.upload(wanted({ name: `disk${index}` }), bytes),
    );
    for (const job of await Promise.all(uploads))
      expect(job).toMatchObject({
        state: 'failed',
        code: 'DEADLINE_EXCEEDED',
        error: 'nothing came from the client for 0.02 s',
      });
    await house.expectNothingLeft();
  });

  it('that says how large it is sends raw content straight to the volume', async () => {
    const content = randomBytes(3 * MiB + 5);
    async function* bytes(): AsyncGenerator<Buffer> {
      yield await Promise.resolve(content.subarray(0, 999));
      yield content.subarray(999);
    }
    const states = new Set<string>();
    const told = house.keeper.hub.tell.bind(house.keeper.hub);
    house.keeper.hub.tell = (change) => {
      if (change.kind === 'import') states.add(change.job.state);
      told(change);
    };
    const { id } = await house.imports.upload(wanted({ size: content.length }), bytes());
    expect([...states]).toEqual(['pending', 'writing', 'completed']);
    const device = await readFile(house.device(`tank/.zvold/${id}`));
    expect(device.subarray(0, content.length).equals(content)).toBe(true);
  });

  it('that sends nothing at all has sent no disk', async () => {
    const job = await house.imports.upload(wanted(), (async function* () {})());
    expect(job).toMatchObject({ state: 'failed', code: 'INVALID_ARGUMENT', error: 'the source is empty' });
  });
});
