import { randomBytes } from 'node:crypto';
import { mkdir, readFile, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { discard } from '../../../src/zvold/discard.ts';
import { ZvolError } from '../../../src/zvold/errors.ts';
import type { ImportRequest } from '../../../src/zvold/request.ts';
import { call } from '../../support/call.ts';
import { ZvoldHouse } from './support.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
let house: ZvoldHouse;
let server: Server | undefined;

beforeEach(async () => {
  house = await ZvoldHouse.open();
  await mkdir(path(''));
});

afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
  await house.close();
});

const path = (name: string): string => join(house.folder, 'images', name);
const wanted = (more: Partial<ImportRequest> = {}): ImportRequest => ({
  name: 'disk',
  target: 'template',
  sha256: '',
  id: '',
  ...more,
});

async function serve(answer: RequestListener): Promise<string> {
  server = createServer(answer);
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk`;
}

/** Content that never comes. */
async function* nothing(): AsyncGenerator<Buffer> {
  yield await new Promise<Buffer>(() => undefined);
}

const qcow2 = (size = 2 * MiB, ...options: string[]): Promise<void> =>
  writeFile(path('disk.raw'), randomBytes(size)).then(
    () =>
      void call(
        'qemu-img',
        'convert',
        '-O',
        'qcow2',
        '-f',
        'raw',
        ...options,
        path('disk.raw'),
        path('disk.qcow2'),
      ),
  );

const busy = (): ZvolError => new ZvolError('FAILED_PRECONDITION', "cannot destroy 'x': dataset is busy");

describe('a qcow2 that was cut off', () => {
  it.each([[[]], [['-c']], [['-o', 'compat=0.10']]])(
    '(made with %s) is told so, and leaves nothing',
    async (options) => {
      await qcow2(2 * MiB, ...options);
      await truncate(path('disk.qcow2'), (await readFile(path('disk.qcow2'))).length - 200 * KiB);
      const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
      expect(await house.ended(id)).toMatchObject({
        state: 'failed',
        code: 'DATA_LOSS',
        error: expect.stringContaining('the qcow2 was cut off') as string,
      });
      await house.expectNothingLeft();
    },
  );
});

describe('a pool without room', () => {
  it('is seen before anything is written', async () => {
    house.fake.available = 10 * MiB;
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const { id } = await house.imports.start(wanted(), path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      error: 'there is no room left in the pool tank: it has 10 MiB free, which imports leave alone',
    });
    await house.expectNothingLeft();
  });

  it('is seen while it fills', async () => {
    house.fake.available = 40 * MiB;
    // What was written shows once the pool has really written it.
    house.fake.before = (argv) => {
      if (argv[0] === 'zpool') house.fake.available -= 6 * MiB;
    };
    await writeFile(path('disk.raw'), randomBytes(64 * MiB));
    const { id } = await house.imports.start(wanted(), path('disk.raw'));
    const { code, done } = await house.ended(id);
    expect(code).toBe('RESOURCE_EXHAUSTED');
    expect(done).toBeLessThan(40 * MiB);
    await house.expectNothingLeft();
  });

  it('is seen while qemu-img fills it, which is ended', async () => {
    await qcow2();
    house.fake.available = 17 * MiB;
    house.fake.before = (argv) => {
      if (argv[0] === 'zpool') house.fake.available = MiB;
    };
    house.convert = (_, { signal }) =>
      new Promise((__, reject) =>
        signal?.addEventListener('abort', () => reject(new ZvolError('CANCELLED', 'qemu-img was ended'))),
      );
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'RESOURCE_EXHAUSTED' });
    await house.expectNothingLeft();
  });

  it.each([
    ['is what an I/O error means there', 0, 'RESOURCE_EXHAUSTED', 'the pool was full'],
    ['is not what an I/O error means elsewhere', 2 ** 40, 'INVALID_ARGUMENT', 'Input/output error'],
  ])('%s', async (_, available, code, words) => {
    await qcow2();
    house.convert = () => {
      house.fake.available = available;
      const stderr = 'qemu-img: error while writing at byte 0: Input/output error\n';
      return Promise.resolve({ exitCode: 1, stdout: '', stderr });
    };
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    const job = await house.ended(id);
    expect(job).toMatchObject({ state: 'failed', code });
    expect(job.error).toContain(words);
    await house.expectNothingLeft();
  });
});

describe('a zvol whose device somebody has open', () => {
  beforeEach(() => writeFile(path('disk.raw'), randomBytes(MiB)));

  it('goes as soon as nobody has any more', async () => {
    let [refused, looked] = [0, 0];
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy' && (refused += 1) < 3) throw busy();
    };
    const users = house.fake.machine.usersOf.bind(house.fake.machine);
    house.fake.machine.usersOf = (device) => {
      looked += 1;
      return looked === 1 ? Promise.resolve(['open in (udev-worker) (7)']) : users(device);
    };
    const { id } = await house.imports.start(wanted({ sha256: '0'.repeat(64) }), path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'DATA_LOSS' });
    expect({ refused, looked: looked > 1 }).toEqual({ refused: 3, looked: true });
    await house.expectNothingLeft();
  });

  it('is not waited for for ever, and told of', async () => {
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy') throw busy();
    };
    await expect(discard(house.keeper, 'tank/x', 0)).rejects.toThrow('dataset is busy');
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy') throw new ZvolError('UNAVAILABLE', 'pool I/O is currently suspended');
    };
    const { id } = await house.imports.start(wanted({ sha256: '0'.repeat(64) }), path('disk.raw'));
    const { error } = await house.ended(id);
    expect(error).toMatch(
      /was wanted; tank\/\.zvold\/.* could not be taken away, and goes when zvold starts again/,
    );
    expect(house.reports).toEqual([expect.stringContaining('currently suspended')]);
    house.fake.before = () => undefined;
    expect(await house.anew().recover()).toEqual([`the unfinished tank/.zvold/${id} was destroyed`]);
    await house.expectNothingLeft();
  });
});

describe('the queue', () => {
  /** Two imports that wait for a server for ever, so that nobody else has a turn. */
  async function occupy(): Promise<string[]> {
    const url = await serve(() => undefined);
    const both = ['one', 'two'].map((name) => house.imports.start(wanted({ name, id: name }), url));
    return (await Promise.all(both)).map(({ id }) => id);
  }

  it('is left at once by an import that is cancelled, and goes on without it', async () => {
    const [first = '', second = ''] = await occupy();
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const waiting = await house.imports.start(wanted({ name: 'three' }), path('disk.raw'));
    const next = await house.imports.start(wanted({ name: 'four' }), path('disk.raw'));
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
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const waiting = await house.imports.start(wanted({ name: 'three' }), path('disk.raw'));
    await house.imports.close();
    expect(house.imports.get(waiting.id)).toMatchObject({
      state: 'failed',
      error: 'zvold was ended in the middle of it',
    });
    expect(house.imports.get(first)).toMatchObject({ state: 'downloading' });
    expect(await house.anew().recover()).toHaveLength(2);
  });

  it('gives the same import for the same id, whenever it is asked', async () => {
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const all = await Promise.all(
      Array.from({ length: 4 }, () => house.imports.start(wanted({ id: 'mine' }), path('disk.raw'))),
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

describe('a journal that can’t be written', () => {
  const journal = (): string => join(house.folder, 'state', 'imports');
  beforeEach(() => writeFile(path('disk.raw'), randomBytes(MiB)));

  it('fails the import that begins, and nothing else', async () => {
    await symlink('/dev/full', join(journal(), 'mine.json.new'));
    await expect(house.imports.start(wanted({ id: 'mine' }), path('disk.raw'))).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringMatching(/^the journal of imports in .* can't be written: ENOSPC/) as string,
    });
    expect(await readdir(journal())).toEqual([]);
    expect(house.imports.list(true)).toEqual([]);
    await house.expectNothingLeft();
    const { id } = await house.imports.start(wanted({ id: 'mine' }), path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
  });

  it('at the end of an import is said, and the pool knows better', async () => {
    house.fake.before = async (argv) => {
      if (argv[1] === 'inherit') await rm(journal(), { recursive: true });
    };
    const { id } = await house.imports.start(wanted(), path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(house.reports).toEqual([expect.stringContaining(`how the import ${id} ended is not kept`)]);
  });

  it('leaves a file beside it, which the next daemon takes away', async () => {
    await writeFile(join(journal(), 'mine.json.new'), '{"id": "mi');
    await writeFile(join(journal(), 'torn.json'), '{"id": "to');
    await writeFile(join(journal(), 'other.json'), 'null');
    house.anew();
    expect(await readdir(journal())).toEqual([]);
  });
});

describe('an import is cancelled, and leaves nothing,', () => {
  /** Cancels at a call that zvold makes, which then goes on. */
  function cancelAt(words: string): { readonly cancelled: Promise<boolean> } {
    let done: (cancelled: Promise<boolean>) => void = () => undefined;
    const cancelled = new Promise<boolean>((resolve) => (done = resolve));
    house.fake.before = (argv) => {
      if (argv.join(' ').startsWith(words)) done(house.imports.cancel('mine'));
    };
    return { cancelled };
  }

  it.each([
    ['while its zvol is made', 'zfs create -s', 'template'],
    ['while its snapshot is taken', 'zfs snapshot', 'template'],
    ['while it gets its name', 'zfs rename', 'volume'],
  ] as const)('%s', async (_, words, target) => {
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt(words);
    await house.imports.start(wanted({ id: 'mine', target }), path('disk.raw'));
    expect(await cancelled).toBe(true);
    expect(house.imports.get('mine')).toMatchObject({ state: 'cancelled' });
    await house.expectNothingLeft();
  });

  it('but for its last step, after which it is whole', async () => {
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt('zfs inherit');
    await house.imports.start(wanted({ id: 'mine' }), path('disk.raw'));
    expect(await cancelled).toBe(false);
    expect(house.imports.get('mine')).toMatchObject({ state: 'completed' });
  });

  it('while a source is hashed and looked through, whose progress is told', async () => {
    await qcow2();
    // What lies behind the content belongs to nothing.
    await truncate(path('disk.qcow2'), 512 * MiB);
    house.convert = () => Promise.reject(new Error('it was read'));
    await house.imports.start(wanted({ id: 'mine', sha256: '0'.repeat(64) }), path('disk.qcow2'));
    await expect.poll(() => house.imports.get('mine').done, { interval: 1 }).toBeGreaterThan(0);
    expect(house.imports.get('mine')).toMatchObject({ state: 'converting' });
    expect(await house.imports.cancel('mine')).toBe(true);
    await house.expectNothingLeft();
  });

  it('before its source is opened', async () => {
    await writeFile(path('disk.raw'), randomBytes(MiB));
    const { cancelled } = cancelAt('zfs create -o canmount=off');
    await house.imports.start(wanted({ id: 'mine' }), path('disk.raw'));
    expect(await cancelled).toBe(true);
    await house.expectNothingLeft();
  });

  it('while raw content is written', async () => {
    await writeFile(path('disk.raw'), '');
    await truncate(path('disk.raw'), 4096 * MiB);
    await house.imports.start(wanted({ id: 'mine' }), path('disk.raw'));
    await expect.poll(() => house.imports.get('mine').done, { interval: 1 }).toBeGreaterThan(0);
    expect(house.imports.get('mine')).toMatchObject({ state: 'writing', total: 4096 * MiB });
    expect(await house.imports.cancel('mine')).toBe(true);
    await house.expectNothingLeft();
  });

  it('while it is downloaded, and kept', async () => {
    const url = await serve((_, response) => response.write(Buffer.alloc(MiB, 1)));
    await house.imports.start(wanted({ id: 'mine' }), url);
    await expect.poll(() => house.imports.get('mine').done).toBe(MiB);
    expect(house.imports.get('mine')).toMatchObject({ state: 'downloading' });
    expect(await house.imports.cancel('mine')).toBe(true);
    await house.expectNothingLeft();
  });
});

describe('an address', () => {
  it('that hangs is given up after a few attempts', async () => {
    house.stallAfter = 20;
    house.anew();
    let asked = 0;
    const url = await serve(() => (asked += 1));
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
    const url = await serve((request, response) => {
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
    const url = await serve((request, response) => {
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
      const url = await serve((_, response) => {
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
    const url = await serve((_, response) =>
      response.writeHead(200, { 'content-length': 2 ** 50 }).write('x'),
    );
    const { id } = await house.imports.start(wanted(), url);
    expect(await house.ended(id)).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    // Nobody is connected any more.
    await new Promise((resolve) => server?.close(resolve));
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
    await writeFile(path('disk.raw'), randomBytes(KiB));
    await expect(house.imports.start(wanted(request), path('disk.raw'))).rejects.toMatchObject({
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
    await writeFile(path('disk.raw'), 'content');
    const sha256 = 'ED7002B439E9AC845F22357D822BAC1444730FBDB6016D3EC9432297B9EC9F73';
    const { id } = await house.imports.start(wanted({ sha256 }), path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
  });

  it('is not given the id of something else', async () => {
    await writeFile(path('disk.raw'), 'content');
    await house.imports.start(wanted({ id: 'mine' }), path('disk.raw'));
    await house.ended('mine');
    await rm(join(house.folder, 'state', 'imports'), { recursive: true });
    house.anew();
    await expect(
      house.imports.start(wanted({ id: 'mine', name: 'other' }), path('disk.raw')),
    ).rejects.toThrow('the template "disk" has the id mine');
    expect(house.fake.datasets.has('tank/.zvold/mine')).toBe(true);
  });
});
