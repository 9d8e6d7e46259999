import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm, symlink, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call } from '../../support/call.ts';
import { ImportScene, KiB, wanted } from './import-scene.ts';
import type { ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

describe('a path', () => {
  it('of a pipe is not waited for, as nobody may ever write to it', async () => {
    call('mkfifo', scene.path('pipe'));
    const { id } = await house.imports.start(wanted(), scene.path('pipe'));
    expect(await house.ended(id)).toMatchObject({
      code: 'INVALID_ARGUMENT',
      error: `${scene.path('pipe')} is no file`,
    });
    await house.expectNothingLeft();
  });

  it('that can’t be looked at is not told to be missing', async () => {
    await symlink(scene.path('round'), scene.path('round'));
    await expect(house.imports.start(wanted(), scene.path('round'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/round can't be looked at: ELOOP/) as string,
    });
    await expect(house.imports.start(wanted(), scene.path('none'))).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});

/** Listens and never answers anybody, so that a connection to it does not even come about once two others wait. */
const deaf = `
const { createServer } = require('node:net');
createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () {
  require('node:fs').writeSync(1, String(this.address().port) + '\\n');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});
`;

describe('an address', () => {
  it('to which no connection comes about is given up as well', async () => {
    const server = spawn(process.execPath, ['-e', deaf], { stdio: ['ignore', 'pipe', 'inherit'] });
    const waiting: Socket[] = [];
    try {
      const port = Number(String((await once(server.stdout, 'data'))[0]));
      for (let each = 0; each < 2; each += 1) {
        const socket = connect(port, '127.0.0.1').on('error', () => undefined);
        waiting.push(socket);
        await once(socket, 'connect');
      }
      house.stallAfter = 50;
      house.anew();
      const { id } = await house.imports.start(wanted(), `http://127.0.0.1:${port}/disk`);
      expect(await house.ended(id)).toMatchObject({
        code: 'UNAVAILABLE',
        error: `no byte came from 127.0.0.1:${port} for 0.05 s`,
      });
    } finally {
      for (const socket of waiting) socket.destroy();
      server.kill('SIGKILL');
    }
  });

  it('that hangs is given up after a few attempts', async () => {
    house.stallAfter = 20;
    house.anew();
    let asked = 0;
    const url = await scene.serve(() => (asked += 1));
    const { id } = await house.imports.start(wanted(), url);
    expect(await house.ended(id)).toMatchObject({
      code: 'UNAVAILABLE',
      error: expect.stringMatching(/^no byte came from 127\.0\.0\.1:\d+ for 0\.02 s$/) as string,
    });
    expect(asked).toBe(4);
    await house.expectNothingLeft();
  });

  it('that hangs in the middle is asked again for the rest, and given up when there is none', async () => {
    house.stallAfter = 50;
    house.anew();
    const url = await scene.serve((request, response) => {
      const rest = request.headers.range === undefined ? {} : { 'content-range': 'bytes 1000-1999/2000' };
      const length = request.headers.range === undefined ? 2000 : 1000;
      response.writeHead(request.headers.range === undefined ? 200 : 206, {
        'content-length': length,
        etag: '"a"',
        ...rest,
      });
      if (length === 2000) response.write(Buffer.alloc(1000, 1));
      else response.flushHeaders();
    });
    const { id } = await house.imports.start(wanted(), url);
    expect(await house.ended(id)).toMatchObject({
      code: 'UNAVAILABLE',
      error: expect.stringContaining('was cut off') as string,
    });
    await house.expectNothingLeft();
  });

  it.each([
    ['parts that were not asked for', { 'content-range': 'bytes 5-1999/2000' }, 'were asked for'],
    ['what is packed', { 'content-encoding': 'gzip' }, 'sends it packed (gzip)'],
  ])('that sends %s is not believed', async (_, headers, words) => {
    const url = await scene.serve((request, response) => {
      if (request.headers.range !== undefined) response.writeHead(206, headers).end(Buffer.alloc(1995, 1));
      else {
        const whole = {
          'content-length': 2000,
          etag: '"a"',
          ...('content-encoding' in headers ? headers : {}),
        };
        response.writeHead(200, whole);
        response.write(Buffer.alloc(1000, 1), () => response.socket?.destroySoon());
      }
    });
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain(words);
    await house.expectNothingLeft();
  });

  it.each(['http://169.254.169.254/latest', 'http://127.0.0.1:1/', 'http://localhost:1/', 'http://[::1]:1/'])(
    'that leads to %s is not followed there',
    async (location) => {
      let led = false;
      const { policy } = house;
      // The server is on this machine itself, so that it may be asked until it leads on.
      house.policy = {
        ...policy,
        get allowLocalAddresses() {
          return !led;
        },
      };
      house.anew();
      const url = await scene.serve((_, response) => {
        led = true;
        response.writeHead(302, { location }).end();
      });
      const { id } = await house.imports.start(wanted(), url);
      expect(await house.ended(id)).toMatchObject({
        code: 'PERMISSION_DENIED',
        error: expect.stringContaining('which imports may not ask') as string,
      });
      await house.expectNothingLeft();
    },
  );

  it('whose content is larger than what is taken is refused by what it says', async () => {
    const url = await scene.serve((_, response) =>
      response.writeHead(200, { 'content-length': 2 ** 50 }).write('x'),
    );
    const { id } = await house.imports.start(wanted(), url);
    expect(await house.ended(id)).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    // Nobody is connected any more.
    await new Promise((resolve) => scene.server?.close(resolve));
    await house.expectNothingLeft();
  });
});

describe('what is asked for', () => {
  it.each([
    ['a name with a /', { name: 'a/b' }],
    ['a name with an @', { name: 'a@b' }],
    ['a name with a space', { name: 'a b' }],
    ['a name of 256 characters', { name: 'x'.repeat(256) }],
    ['no name', { name: '' }],
    ['no size', { size: 0 }],
    ['a negative size', { size: -1 }],
    ['a size of 2^63', { size: 2 ** 63 }],
    ['a size that is no number', { size: Number.NaN }],
    ['blocks of no size', { blockSize: 0 }],
    ['a checksum that is none', { sha256: 'abc' }],
    ['an id with a /', { id: '../x' }],
  ])('is refused with %s', async (_, request) => {
    await writeFile(scene.path('disk.raw'), randomBytes(KiB));
    await expect(house.imports.start(wanted(request), scene.path('disk.raw'))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    expect(house.imports.list(true)).toEqual([]);
  });

  it.each(['/srv/a\nb', 'http://a\n.example/', '/srv/\0', 'x'.repeat(5000), ''])(
    'is refused of a source that is no line (%j)',
    async (source) => {
      await expect(house.imports.start(wanted(), source)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    },
  );

  it('may have its checksum in large letters', async () => {
    await writeFile(scene.path('disk.raw'), 'content');
    const sha256 = 'ED7002B439E9AC845F22357D822BAC1444730FBDB6016D3EC9432297B9EC9F73';
    const { id } = await house.imports.start(wanted({ sha256 }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
  });

  it('is not given the id of something else', async () => {
    await writeFile(scene.path('disk.raw'), 'content');
    await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await house.ended('mine');
    await rm(join(house.folder, 'state', 'imports'), { recursive: true });
    house.anew();
    await expect(
      house.imports.start(wanted({ id: 'mine', name: 'other' }), scene.path('disk.raw')),
    ).rejects.toThrow('the template "disk" has the id mine');
    expect(house.fake.datasets.has('tank/.zvold/mine')).toBe(true);
  });
});
