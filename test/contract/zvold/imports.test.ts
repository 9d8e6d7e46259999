import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import type { ImportRequest } from '../../../src/zvold/request.ts';
import { inventory } from '../../../src/zvold/keeper.ts';
import { call } from '../../support/call.ts';
import { ZvoldHouse } from './support.ts';

const KiB = 1024;
let house: ZvoldHouse;
let images: string;
let server: Server | undefined;

/** Random bytes with a hole of zeros in it, not a whole number of blocks long. */
const content = Buffer.concat([
  randomBytes(1500 * KiB),
  Buffer.alloc(2048 * KiB),
  randomBytes(100 * KiB + 7),
]);
const sum = createHash('sha256').update(content).digest('hex');

beforeEach(async () => {
  house = await ZvoldHouse.open();
  images = join(house.folder, 'images');
  await mkdir(images);
});

afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
  await house.close();
});

const wanted = (more: Partial<ImportRequest> = {}): ImportRequest => ({
  name: 'disk',
  target: 'template',
  sha256: '',
  id: '',
  ...more,
});

async function serve(
  answer: (
    range: string | undefined,
    send: (status: number, headers: Record<string, string>, body?: Buffer, whole?: boolean) => void,
  ) => void,
): Promise<string> {
  server = createServer((request, response) => {
    answer(request.headers.range, (status, headers, body = Buffer.alloc(0), whole = true) => {
      response.writeHead(status, headers);
      response.write(body, () => (whole ? response.end() : response.socket?.destroySoon()));
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk`;
}

async function failureOf(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof ZvolError) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('it did not fail');
}

/** The words in which an import from an address is refused, or fails. */
function outcomeOf(address: string): Promise<string> {
  return house.imports.start(wanted(), address).then(
    async ({ id }) => (await house.ended(id)).error,
    (error: unknown) => (error as Error).message,
  );
}

async function expectContent(dataset: string): Promise<void> {
  const device = await readFile(house.device(dataset));
  expect(device.length % (16 * KiB)).toBe(0);
  expect(device.subarray(0, content.length).equals(content)).toBe(true);
  expect(device.subarray(content.length).every((byte) => byte === 0)).toBe(true);
}

async function expectNothingLeft(): Promise<void> {
  expect([...house.fake.datasets.keys()].filter((name) => name !== 'tank' && name !== 'tank/.zvold')).toEqual(
    [],
  );
  expect(await readdir(join(house.folder, 'state', 'spool')).catch(() => [])).toEqual([]);
}

describe('raw content of a file', () => {
  beforeEach(() => writeFile(join(images, 'disk.raw'), content));

  it('becomes a template that is cloned from', async () => {
    const { id } = await house.imports.start(wanted({ sha256: sum }), join(images, 'disk.raw'));
    expect(await house.ended(id)).toMatchObject({
      state: 'completed',
      done: content.length,
      total: content.length,
    });
    await expectContent(`tank/.zvold/${id}`);
    expect(await inventory(house.keeper)).toMatchObject({
      templates: [{ name: 'disk', id, clones: [] }],
      volumes: [],
      unfinished: [],
    });
  });

  it('becomes a volume, larger if asked', async () => {
    const { id } = await house.imports.start(
      wanted({ target: 'volume', size: 8192 * KiB }),
      join(images, 'disk.raw'),
    );
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(await inventory(house.keeper)).toMatchObject({
      volumes: [{ name: 'disk', id, size: 8192 * KiB }],
      templates: [],
    });
  });

  it('is made once for one id', async () => {
    const first = await house.imports.start(wanted({ id: 'mine' }), join(images, 'disk.raw'));
    expect((await house.imports.start(wanted({ id: 'mine' }), join(images, 'disk.raw'))).id).toBe(first.id);
    expect(
      await failureOf(house.imports.start(wanted({ id: 'mine', name: 'other' }), join(images, 'disk.raw'))),
    ).toMatchObject({ code: 'ALREADY_EXISTS' });
    await house.ended('mine');
    expect(await failureOf(house.imports.start(wanted(), join(images, 'disk.raw')))).toMatchObject({
      code: 'ALREADY_EXISTS',
    });
  });

  it.each([
    [{ name: 'other' }, 'of the name "disk"; this one is of the name "other"'],
    [{ target: 'volume' }, 'for a template; this one is for a volume'],
    [{ sha256: sum.toUpperCase() }, `without a checksum; this one is with the checksum ${sum}`],
    [{ size: 8192 * KiB }, `without a size; this one is of the size ${8192 * KiB}`],
    [
      { blockSize: 4096, sha256: sum },
      `with blocks of 16384 bytes, without a checksum; this one is with blocks of 4096 bytes, with the checksum ${sum}`,
    ],
  ] as const)('is not taken for another one of the same id: %o', async (more, words) => {
    const source = join(images, 'disk.raw');
    await house.imports.start(wanted({ id: 'mine' }), source);
    const other = { code: 'ALREADY_EXISTS', message: `there is an import mine already, ${words}` };
    expect(await failureOf(house.imports.start(wanted({ id: 'mine', ...more }), source))).toEqual(other);
    await house.ended('mine');
    expect(await failureOf(house.imports.start(wanted({ id: 'mine', ...more }), source))).toEqual(other);
  });

  it('of another source is not taken for that of the same id, and the same as before is', async () => {
    const source = join(images, 'disk.raw');
    const same = wanted({ id: 'mine', sha256: sum, size: 8192 * KiB - 5 });
    await house.imports.start(same, source);
    await house.ended('mine');
    await writeFile(join(images, 'other.raw'), content);
    const failure = await failureOf(house.imports.start(same, join(images, 'other.raw')));
    expect(failure.message).toContain(`of ${source}; this one is of ${join(images, 'other.raw')}`);
    // Also by what a later daemon knows of it.
    const next = house.anew();
    expect(await next.start({ ...same, sha256: sum.toUpperCase() }, source)).toMatchObject({
      id: 'mine',
      state: 'completed',
    });
  });

  it('with a wrong checksum leaves nothing', async () => {
    const { id } = await house.imports.start(wanted({ sha256: '0'.repeat(64) }), join(images, 'disk.raw'));
    expect(await house.ended(id)).toMatchObject({
      state: 'failed',
      error: expect.stringContaining(`has the checksum ${sum}`) as string,
    });
    await expectNothingLeft();
  });

  it('that is larger than what was asked for leaves nothing', async () => {
    const { id } = await house.imports.start(wanted({ size: 16 * KiB }), join(images, 'disk.raw'));
    expect((await house.ended(id)).error).toContain('more than the 16384 that were asked for');
    await expectNothingLeft();
  });
});

describe('what may be read', () => {
  it('is what lies below an allowed folder, links followed; whether there is more is not told', async () => {
    await writeFile(join(house.folder, 'secret'), content);
    await symlink(join(house.folder, 'secret'), join(images, 'link'));
    for (const path of [
      join(images, 'link'),
      join(house.folder, 'secret'),
      join(images, '..', 'secret'),
      '/nowhere/at/all',
    ])
      expect(await failureOf(house.imports.start(wanted(), path))).toMatchObject({
        code: 'PERMISSION_DENIED',
      });
    expect(await failureOf(house.imports.start(wanted(), join(images, 'none')))).toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(await failureOf(house.imports.start(wanted(), 'relative'))).toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  it.each(['file:///etc/passwd', 'ftp://example.org/x', 'gopher://example.org/'])(
    'is nothing by %s',
    async (address) => {
      expect(await failureOf(house.imports.start(wanted(), address))).toMatchObject({
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
    const url = await serve((_, send) => send(302, { location: 'file:///etc/passwd' }));
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain('neither http nor https');
    await expectNothingLeft();
  });
});

describe('an address', () => {
  const whole = { 'content-length': String(content.length), etag: '"a"' };

  it('streams raw content straight to the volume, and goes on where a connection was cut off', async () => {
    const ranges: (string | undefined)[] = [];
    const url = await serve((range, send) => {
      ranges.push(range);
      const from = Number(/\d+/.exec(range ?? '')?.[0] ?? 0);
      if (range) send(206, { 'content-range': `bytes ${from}-`, etag: '"a"' }, content.subarray(from));
      else send(200, whole, content.subarray(0, 900 * KiB), false);
    });
    const { id } = await house.imports.start(wanted({ sha256: sum }), url);
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(ranges).toHaveLength(2);
    await expectContent(`tank/.zvold/${id}`);
    expect(await readdir(join(house.folder, 'state', 'spool')).catch(() => [])).toEqual([]);
  });

  it.each([
    ['404', 404, {}, 'answered 404'],
    ['a body that is shorter than it said, and no parts', 200, { 'content-length': '5000' }, 'cut off'],
  ])('that answers with %s leaves nothing', async (_, status, headers, words) => {
    const url = await serve((__, send) => send(status, headers, Buffer.alloc(4000, 1), status !== 200));
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain(words);
    await expectNothingLeft();
  });

  it('that leads to itself ends', async () => {
    const url = await serve((_, send) => send(302, { location: '/disk' }));
    const { id } = await house.imports.start(wanted(), url);
    expect((await house.ended(id)).error).toContain('leads on and on');
  });

  it('that hangs is cancelled, and leaves nothing', async () => {
    const url = await serve(() => undefined);
    const { id } = await house.imports.start(wanted(), url);
    expect(await house.imports.cancel(id)).toBe(true);
    expect(house.imports.get(id)).toMatchObject({ state: 'cancelled' });
    expect(await house.imports.cancel(id)).toBe(false);
    await expectNothingLeft();
  });
});

describe('a qcow2', () => {
  const path = (name: string): string => join(images, name);

  beforeEach(async () => {
    await writeFile(path('content.raw'), content);
    call('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', path('content.raw'), path('disk.qcow2'));
    house.convert = (argv, { onOutput }) => {
      onOutput?.('    (50.00/100%)\r');
      // The fake's volumes are files, which know no --target-is-zero.
      call('qemu-img', ...argv.slice(1).filter((word) => word !== '--target-is-zero' && word !== '-p'));
      return Promise.resolve({ exitCode: 0, stdout: '', stderr: '' });
    };
  });

  it('is converted, with its progress told', async () => {
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    await expectContent(`tank/.zvold/${id}`);
  });

  it('that a client sends is kept until it is read, and no longer', async () => {
    const bytes = await readFile(path('disk.qcow2'));
    async function* pieces(): AsyncGenerator<Buffer> {
      for (let at = 0; at < bytes.length; at += 10_000)
        yield await Promise.resolve(bytes.subarray(at, at + 10_000));
    }
    const job = await house.imports.upload(wanted(), pieces());
    expect(job).toMatchObject({ state: 'completed', source: 'upload' });
    await expectContent(`tank/.zvold/${job.id}`);
    expect(await readdir(join(house.folder, 'state', 'spool'))).toEqual([]);
  });

  it.each([
    ['stands on another file', ['create', '-f', 'qcow2', '-b', '/etc/passwd', '-F', 'raw'], 'backing file'],
    [
      'has its content elsewhere',
      ['create', '-f', 'qcow2', '-o', 'data_file=DATA,data_file_raw=on'],
      'in another file',
    ],
  ])('that %s is refused before anything is made', async (_, words, why) => {
    const create = words.map((word) => word.replace('DATA', path('data')));
    call('qemu-img', create[0] ?? '', '-q', ...create.slice(1), path('bad.qcow2'), '1M');
    house.convert = () => Promise.reject(new Error('it was read'));
    const { id } = await house.imports.start(wanted(), path('bad.qcow2'));
    expect((await house.ended(id)).error).toContain(why);
    await expectNothingLeft();
  });

  it.each([
    ['of another version', 4, [0, 0, 0, 9], 'version 9'],
    ['that is encrypted', 32, [0, 0, 0, 2], 'encrypted'],
    ['of 2^63 bytes', 24, [0x80, 0, 0, 0, 0, 0, 0, 0], 'makes no sense'],
    ['with clusters that make no sense', 20, [0, 0, 0, 40], 'make no sense'],
    ['with features that nobody knows', 72, [0xff, 0, 0, 0, 0, 0, 0, 0], 'features'],
  ])('%s is refused', async (_, offset, bytes, why) => {
    const start = await readFile(path('disk.qcow2'));
    Buffer.from(bytes).copy(start, offset);
    await writeFile(path('bad.qcow2'), start);
    const { id } = await house.imports.start(wanted(), path('bad.qcow2'));
    expect((await house.ended(id)).error).toContain(why);
    await expectNothingLeft();
  });

  it('that ends too early fails in the words of its reader', async () => {
    house.convert = () =>
      Promise.resolve({
        exitCode: 1,
        stdout: '',
        stderr: 'qemu-img: error while reading at byte 0: Input/output error\n',
      });
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    expect((await house.ended(id)).error).toContain('error while reading at byte 0');
    await expectNothingLeft();
  });

  it('is cancelled while it is converted, and leaves nothing', async () => {
    const converting = new Promise<void>((begun) => {
      house.convert = (_, { signal, onOutput }) => {
        onOutput?.('(1.00/100%)');
        begun();
        return new Promise((__, reject) =>
          signal?.addEventListener('abort', () => reject(new ZvolError('CANCELLED', 'ended'))),
        );
      };
    });
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    await converting;
    expect(house.imports.get(id).state).toBe('converting');
    expect(await house.imports.cancel(id)).toBe(true);
    await expectNothingLeft();
  });
});

describe('a daemon that was killed', () => {
  const steps = ['zfs create -s', 'zfs snapshot', 'zfs inherit'];

  it.each(steps)('at "%s" leaves what the next one tidies up, and says so', async (step) => {
    await writeFile(join(images, 'disk.raw'), content);
    house.fake.before = (argv) =>
      argv.join(' ').startsWith(step) ? new Promise(() => undefined) : Promise.resolve();
    const { id } = await house.imports.start(wanted(), join(images, 'disk.raw'));
    await expect.poll(() => house.fake.calls.some((words) => words.startsWith(step))).toBe(true);
    // Nothing of it goes on: its next step never comes back.
    house.fake.before = () => undefined;
    const next = house.anew();
    const told = await next.recover();
    expect(told[0]).toContain(`the import ${id} of "disk" was cut off`);
    expect(next.get(id)).toMatchObject({ state: 'failed', error: 'zvold ended in the middle of it' });
    expect(await inventory(house.keeper)).toEqual({ volumes: [], templates: [], unfinished: [] });
    expect(await next.recover()).toEqual([]);
  });

  it('after the last step, before its journal knew, is told that it was through', async () => {
    await writeFile(join(images, 'disk.raw'), content);
    const through = new Promise<void>((resolve) => {
      house.fake.before = async (argv) => {
        if (argv[1] !== 'inherit') return;
        house.fake.before = () => undefined;
        await house.fake.command([...argv] as [string, ...string[]], { deadline: 1 });
        resolve();
        await new Promise(() => undefined);
      };
    });
    const { id } = await house.imports.start(wanted(), join(images, 'disk.raw'));
    await through;
    house.fake.before = () => undefined;
    const next = house.anew();
    expect((await next.recover())[0]).toContain(`the import ${id} of "disk" was through`);
    expect(next.get(id)).toMatchObject({ state: 'completed', error: '' });
    expect((await inventory(house.keeper)).templates).toMatchObject([{ id, name: 'disk' }]);
  });
});
