import { createHash, randomBytes } from 'node:crypto';
import { open, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ImportJob } from '../../../src/zvold/jobs.ts';
import { inventory } from '../../../src/zvold/keeper.ts';
import type { ImportRequest } from '../../../src/zvold/request.ts';
import { fileServer, type Behaviour, type FileServer } from '../../fakes/file-server.ts';
import { call } from '../../support/call.ts';
import { convertToFile, recovered, ZvoldHouse } from './support.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
/** With a hole behind what is safe when the daemon is killed, and not a whole number of sectors. */
const content = Buffer.concat([
  randomBytes(2.5 * MiB),
  Buffer.alloc(1.25 * MiB),
  Buffer.alloc(MiB + 7, 'zfsdev '),
]);
const other = randomBytes(5 * MiB);
const sum = createHash('sha256').update(content).digest('hex');
/** Two pieces come whole, and a part of the third. */
const stalls: Behaviour = { content, stallAfter: 2.25 * MiB };

let house: ZvoldHouse;
let server: FileServer;

beforeEach(async () => {
  house = await ZvoldHouse.open();
  server = await fileServer(stalls);
});

afterEach(async () => {
  await house.close();
  await server.close();
});

const request: ImportRequest = { name: 'disk', target: 'template', sha256: sum, id: 'mine' };

function start(more: Partial<ImportRequest> = {}): Promise<ImportJob> {
  return house.imports.start({ ...request, ...more }, server.url);
}

/** What a daemon that is killed leaves of an import. */
async function journal(): Promise<ImportJob> {
  const file = join(house.folder, 'state', 'imports', 'mine.json');
  return JSON.parse(await readFile(file, 'utf8')) as ImportJob;
}

/** Waits until so much is safe; the server sends no more then, so that the daemon does no more either. */
async function reachedSafely(place: 'zvol' | 'file', bytes: number): Promise<void> {
  await expect
    .poll(async () => (await journal()).kept, { timeout: 30_000, interval: 5 })
    .toMatchObject({ place, bytes });
}

/** Another daemon is there instead, and tidies up; gives its words. */
async function next(...answers: readonly Behaviour[]): Promise<string> {
  server.behave(...answers);
  return (await recovered(house.restart())).join('\n');
}

async function expectContent(wanted: Buffer = content): Promise<void> {
  expect(await house.ended('mine')).toMatchObject({ state: 'completed', error: '' });
  const device = await readFile(house.device('tank/.zvold/mine'));
  expect(device.subarray(0, wanted.length).equals(wanted)).toBe(true);
  expect(device.subarray(wanted.length).every((byte) => byte === 0)).toBe(true);
  expect((await journal()).kept).toBeUndefined();
  expect((await inventory(house.keeper)).templates).toMatchObject([{ id: 'mine', name: 'disk' }]);
  await house.expectNothingLeft('tank/.zvold/mine', 'tank/.zvold/mine@img');
}

const created = (): number => house.fake.calls.filter((words) => words.startsWith('zfs create -s')).length;

/** Overwrites a part of the zvol. */
async function scribble(at: number, length: number): Promise<void> {
  const device = await open(house.device('tank/.zvold/mine'), 'r+');
  await device.write(Buffer.alloc(length, 0xff), 0, length, at);
  await device.close();
}

describe('a download of raw content, whose daemon is killed,', () => {
  it('goes on behind what was safe, and its checksum is that of all of it', async () => {
    await start();
    await reachedSafely('zvol', 2 * MiB);
    // What was not safe yet: a part of the next piece, or anything that came of it.
    await scribble(2 * MiB, 1.5 * MiB);
    expect(await next({ content })).toBe(
      `the import mine of "disk" was cut off and goes on: ${2 * MiB} of its ${content.length} bytes are safe`,
    );
    expect((await start()).id).toBe('mine');
    await expectContent();
    expect(server.requests).toEqual(['whole', `bytes=${2 * MiB}- of "${sum}"`]);
    expect(created()).toBe(1);
    expect(house.reports).toEqual([]);
  });

  it('again and again goes on from where it was at last', async () => {
    await start({ sha256: '' });
    await reachedSafely('zvol', 2 * MiB);
    await next({ content, stallAfter: 2.25 * MiB });
    await reachedSafely('zvol', 4 * MiB);
    await next({ content });
    await expectContent();
    expect(server.requests.slice(1)).toEqual([2, 4].map((each) => `bytes=${each * MiB}- of "${sum}"`));
  });

  it('is not what its checksum says if what was safe is so no more', async () => {
    await start();
    await reachedSafely('zvol', 2 * MiB);
    await scribble(100, 1);
    await next({ content });
    expect(await house.ended('mine')).toMatchObject({ state: 'failed', code: 'DATA_LOSS' });
    await house.expectNothingLeft();
  });

  it.each([
    ['has another file by now', { content: other }, other],
    ['sends no parts', { content, ranges: false }, content],
    ['sends a part of another without a word', { content: other, careless: true }, other],
  ])('begins anew where the server %s, and says so', async (_, answer, wanted) => {
    await start({ sha256: '' });
    await reachedSafely('zvol', 2 * MiB);
    await next(answer);
    await expectContent(wanted);
    expect(server.requests.map((each) => each.split(' ')[0])).toEqual([
      'whole',
      `bytes=${2 * MiB}-`,
      'whole',
    ]);
    expect(house.reports).toEqual([
      `the import mine of "disk" begins anew: ${server.url} can't be gone on with: the server has another file now, or sends no parts`,
    ]);
    expect(created()).toBe(2);
  });

  it('may be through before all is tidied up, and stays', async () => {
    const orphan = ['-o', 'zfsdev:import=orphan', '-o', 'zfsdev:volume-id=orphan', 'tank/.zvold/orphan'];
    const create = ['zfs', 'create', '-s', '-b', '16384', '-V', '16384', ...orphan] as const;
    await house.fake.command(create, { deadline: 1 });
    await start();
    await reachedSafely('zvol', 2 * MiB);
    house.fake.before = async (argv) => {
      if (argv[1] === 'destroy') await house.ended('mine');
    };
    expect(await next({ content })).toContain('the unfinished tank/.zvold/orphan was destroyed');
    await expectContent();
  });

  it.each([
    ['nothing has come', 10],
    ['nothing was safe', 500 * KiB],
  ])('begins where %s', async (_, stallAfter) => {
    server.behave({ content, stallAfter });
    await start();
    await expect.poll(() => server.sent()).toBe(stallAfter);
    await expect
      .poll(() => house.imports.get('mine').state)
      .toBe(stallAfter > KiB ? 'writing' : 'downloading');
    expect(await next({ content })).toContain('begins anew: nothing of it was safe');
    await expectContent();
    expect(server.requests).toEqual(['whole', 'whole']);
  });

  it.each(['zfs snapshot', 'zfs inherit'])('is whole all the same, if that was at "%s"', async (step) => {
    server.behave({ content });
    house.fake.before = (argv) =>
      argv.join(' ').startsWith(step) ? new Promise(() => undefined) : Promise.resolve();
    await start();
    await expect.poll(() => house.fake.calls.some((words) => words.startsWith(step))).toBe(true);
    house.fake.before = () => undefined;
    await next({ content });
    await expectContent();
  });

  it('fails where the server has it no more, and leaves nothing', async () => {
    await start();
    await reachedSafely('zvol', 2 * MiB);
    await next({ content, status: 404 });
    expect(await house.ended('mine')).toMatchObject({ state: 'failed', code: 'NOT_FOUND' });
    await house.expectNothingLeft();
  });

  it('is cancelled before the next daemon has seen the pool, and leaves nothing', async () => {
    await start();
    await reachedSafely('zvol', 2 * MiB);
    const imports = house.restart();
    expect(await imports.cancel('mine')).toBe(true);
    expect(imports.get('mine')).toMatchObject({ state: 'cancelled' });
    expect(await recovered(imports)).toEqual(['the unfinished tank/.zvold/mine was destroyed']);
    await house.expectNothingLeft();
  });

  it('is cancelled while it waits for its turn, and leaves nothing', async () => {
    await start();
    await reachedSafely('zvol', 2 * MiB);
    server.behave({ content, stallAfter: 10 });
    const imports = house.restart();
    for (const name of ['one', 'two']) await start({ name, id: name });
    expect(await recovered(imports)).toHaveLength(1);
    expect(await imports.cancel('mine')).toBe(true);
    expect(house.fake.datasets.has('tank/.zvold/mine')).toBe(false);
    for (const name of ['one', 'two']) expect(await imports.cancel(name)).toBe(true);
    await house.expectNothingLeft();
  });
});

describe('a download of a qcow2', () => {
  const path = (name: string): string => join(house.folder, name);
  let image: Buffer;
  let conversions: number;

  beforeEach(async () => {
    await writeFile(path('content.raw'), content);
    call('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', path('content.raw'), path('disk.qcow2'));
    image = await readFile(path('disk.qcow2'));
    conversions = 0;
    house.convert = (argv, options) => {
      conversions += 1;
      return convertToFile(argv, options);
    };
  });

  const startQcow2 = (): Promise<ImportJob> =>
    start({ sha256: createHash('sha256').update(image).digest('hex') });

  it('goes on from what was safe of it', async () => {
    server.behave({ content: image, stallAfter: 1.5 * MiB });
    await startQcow2();
    await expect.poll(() => house.imports.get('mine').done).toBe(1.5 * MiB);
    const { kept } = await journal();
    expect(kept).toMatchObject({ place: 'file', total: image.length });
    expect(await next({ content: image })).toContain(`${kept?.bytes} of its ${image.length} bytes are safe`);
    await expectContent();
    expect(server.requests[1]).toMatch(`bytes=${kept?.bytes}- of `);
    expect(conversions).toBe(1);
  });

  it('does not come again where the daemon was killed while it was converted', async () => {
    server.behave({ content: image });
    const convert = house.convert;
    const killed = new Promise<void>((begun) => {
      house.convert = () => {
        begun();
        return new Promise(() => undefined);
      };
    });
    await startQcow2();
    await killed;
    expect(house.fake.datasets.has('tank/.zvold/mine')).toBe(true);
    house.convert = convert;
    await next({ content: image });
    await expectContent();
    expect(server.requests).toEqual(['whole']);
  });

  it('begins anew where its file is gone', async () => {
    server.behave({ content: image, stallAfter: 1.5 * MiB });
    await startQcow2();
    await expect.poll(() => house.imports.get('mine').done).toBe(1.5 * MiB);
    await writeFile(join(house.folder, 'state', 'spool', 'mine'), 'short');
    await next({ content: image });
    await expectContent();
    expect(house.reports).toEqual([expect.stringMatching(/begins anew: only 5 of the \d+ bytes/)]);
  });
});

it('a daemon that is ended leaves its downloads to the next one', async () => {
  await start();
  await reachedSafely('zvol', 2 * MiB);
  await house.imports.close();
  expect(await journal()).toMatchObject({ kept: { bytes: 2 * MiB } });
  expect(house.fake.datasets.has('tank/.zvold/mine')).toBe(true);
  expect(await next({ content })).toContain('goes on');
  await expectContent();
});

it('a journal that can’t be written only means that less is gone on with', async () => {
  house.fake.before = async (argv) => {
    if (argv.join(' ').startsWith('zfs create -s'))
      await symlink('/dev/full', join(house.folder, 'state', 'imports', 'mine.json.new'));
  };
  await start();
  await reachedSafely('zvol', 2 * MiB);
  expect(house.reports).toEqual([expect.stringContaining('how far the import mine has come is not kept')]);
});
