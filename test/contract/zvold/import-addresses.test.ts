import { readdir, symlink, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ImportScene, KiB, sample, sampleSum, wanted } from './import-scene.ts';
import type { ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

/** The words in which an import from an address is refused, or fails. */
function outcomeOf(address: string): Promise<string> {
  return house.imports.start(wanted(), address).then(
    async ({ id }) => (await house.ended(id)).error,
    (error: unknown) => (error as Error).message,
  );
}

describe('what may be read', () => {
  it('is what lies below an allowed folder, links followed; whether there is more is not told', async () => {
    await writeFile(join(house.folder, 'secret'), sample);
    await symlink(join(house.folder, 'secret'), scene.path('link'));
    for (const path of [
      scene.path('link'),
      join(house.folder, 'secret'),
      scene.path('../secret'),
      '/nowhere/at/all',
      `${scene.path('.')}/../nothing`,
    ])
      await expect(house.imports.start(wanted(), path)).rejects.toMatchObject({
        code: 'PERMISSION_DENIED',
      });
    await expect(house.imports.start(wanted(), scene.path('none'))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await expect(house.imports.start(wanted(), 'relative')).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  it.each(['file:///etc/passwd', 'ftp://example.org/x', 'gopher://example.org/'])(
    'is nothing by %s',
    async (address) => {
      await expect(house.imports.start(wanted(), address)).rejects.toMatchObject({
        code: 'PERMISSION_DENIED',
      });
    },
  );

  it.each([
    'http://127.0.0.1/',
    'http://localhost/',
    'http://169.254.169.254/latest',
    'http://[::1]/',
    'http://[::ffff:127.0.0.1]/',
    'http://0.0.0.0/',
  ])('is nothing of this machine or its link, as %s is, unless that is allowed', async (address) => {
    house.policy = { ...house.policy, allowLocalAddresses: false };
    house.anew();
    expect(await outcomeOf(address)).toContain('which imports may not ask');
  });

  it('is nothing of this machine by its address in any network either', async () => {
    house.policy = { ...house.policy, allowLocalAddresses: false };
    house.anew();
    const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
    expect(all.length).toBeGreaterThan(0);
    for (const { address, family } of all)
      expect(await outcomeOf(family === 'IPv4' ? `http://${address}/` : `http://[${address}]/`)).toContain(
        'which imports may not ask',
      );
  });

  it('is not where an address leads that may be asked', async () => {
    const url = await scene.serve((_, response) =>
      response.writeHead(302, { location: 'file:///etc/passwd' }).end(),
    );
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain('neither http nor https');
    await house.expectNothingLeft();
  });
});

describe('an address', () => {
  it('streams raw content straight to the volume, and goes on where a connection was cut off', async () => {
    const ranges: (string | undefined)[] = [];
    const url = await scene.serve(({ headers: { range } }, response) => {
      ranges.push(range);
      const from = Number(/\d+/.exec(range ?? '')?.[0] ?? 0);
      const etag = '"a"';
      if (range !== undefined)
        response.writeHead(206, { 'content-range': `bytes ${from}-`, etag }).end(sample.subarray(from));
      else {
        response.writeHead(200, { 'content-length': sample.length, etag });
        response.write(sample.subarray(0, 900 * KiB), () => response.socket?.destroySoon());
      }
    });
    const { id } = await house.imports.start(wanted({ sha256: sampleSum }), url);
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(ranges).toHaveLength(2);
    await scene.expectSample(`tank/.zvold/${id}`);
    expect(await readdir(join(house.folder, 'state', 'spool')).catch(() => [])).toEqual([]);
  });

  it.each([
    ['404', 404, {}, 'answered 404'],
    ['a body that is shorter than it said, and no parts', 200, { 'content-length': '5000' }, 'cut off'],
  ])('that answers with %s leaves nothing', async (_, status, headers, words) => {
    const url = await scene.serve((__, response) => {
      response.writeHead(status, headers);
      response.write(Buffer.alloc(4000, 1), () =>
        status === 200 ? response.socket?.destroySoon() : response.end(),
      );
    });
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain(words);
    await house.expectNothingLeft();
  });

  it('that leads to itself ends', async () => {
    const url = await scene.serve((_, response) => response.writeHead(302, { location: '/disk' }).end());
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain('leads on and on');
  });

  it('that hangs is cancelled, and leaves nothing', async () => {
    const url = await scene.serve(() => undefined);
    const { id } = await house.imports.start(wanted(), url);
    expect(await house.imports.cancel(id)).toBe(true);
    expect(house.imports.get(id)).toMatchObject({ state: 'cancelled' });
    expect(await house.imports.cancel(id)).toBe(false);
    await house.expectNothingLeft();
  });
});
