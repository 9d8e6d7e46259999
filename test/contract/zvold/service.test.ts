import { createHash } from 'node:crypto';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ZvoldClient } from '../../../src/zvol/api.ts';
import { clientOver } from '../../../src/zvol/client.ts';
import type { Watched } from '../../../src/zvol/messages.ts';
import { listen, type Listener } from '../../../src/zvold/server.ts';
import { generatedClient, type GeneratedClient } from '../../support/generated-client.ts';
import { failureOf, ZvoldHouse } from './support.ts';

const MiB = 2 ** 20;
let house: ZvoldHouse;
let socket: string;
let listener: Listener;
let client: ZvoldClient;
const reports: string[] = [];
const clients: GeneratedClient[] = [];

beforeEach(async () => {
  house = await ZvoldHouse.open();
  socket = join(house.folder, 's');
  reports.length = 0;
  listener = await listen(daemon(), { socket });
  const proxy = { path: socket, problem: () => undefined, close: () => Promise.resolve() };
  client = clientOver(proxy, 'test', new AbortController().signal);
});

afterEach(async () => {
  for (const made of clients.splice(0)) made.close();
  await client.close();
  await listener.close();
  await house.close();
  expect(reports).toEqual([]);
});

function daemon() {
  const { keeper, imports, exports } = house;
  return {
    keeper,
    imports,
    exports,
    version: '1.2.3',
    openzfs: '2.3.9',
    report: (words: string) => void reports.push(words),
  };
}

describe("zvold's own contract", () => {
  it('is spoken on a socket that is its owner’s alone', async () => {
    expect((await stat(socket)).mode & 0o777).toBe(0o600);
  });

  it('takes a volume through its life', async () => {
    const made = await client.createVolume({ name: 'data', sizeBytes: MiB });
    expect(made).toMatchObject({
      name: 'data',
      sizeBytes: MiB,
      volblocksize: 16_384,
      reservedBytes: 0,
      snapshots: [],
    });
    expect(await client.createSnapshot('data', 'first')).toMatchObject({
      name: 'first',
      fullName: 'tank/data@first',
      holds: 0,
    });
    expect(await client.resizeVolume('data', 2 * MiB)).toMatchObject({ sizeBytes: 2 * MiB });
    await client.createTemplate({ name: 'base', volume: 'data', snapshot: 'first' });
    expect(await client.cloneTemplate({ template: 'base', name: 'copy' })).toMatchObject({
      name: 'copy',
      template: 'base',
    });
    expect(await client.templates()).toMatchObject([
      { name: 'base', sourceVolume: 'data', clones: ['copy'] },
    ]);
    expect((await client.volumes()).map(({ name }) => name)).toEqual(['copy', 'data']);
    await client.deleteVolume('copy');
    await client.deleteTemplate('base');
    expect(await client.rollback('data', 'first')).toMatchObject({ name: 'data' });
    expect(await client.deleteSnapshot('data', 'first')).toEqual({ deferred: false });
    await client.deleteVolume('data');
    expect(await client.volumes()).toEqual([]);
  });

  it.each([
    ['not-found', () => client.volume('none'), 'there is no volume "none"'],
    ['usage', () => client.createVolume({ name: 'a/b', sizeBytes: MiB }), '"a/b"'],
    ['usage', () => client.createVolume({ name: 'large', sizeBytes: 2 ** 63 }), 'no size of a volume'],
    ['not-found', () => client.import('none'), 'there is no import "none"'],
  ])('tells %s in words', async (reason, work, words) => {
    expect(await failureOf(work())).toMatchObject({
      reason,
      message: expect.stringContaining(words) as string,
    });
  });

  it('tells that a pool is gone, and goes on when it is back', async () => {
    house.fake.state = undefined;
    expect(await failureOf(client.volumes())).toMatchObject({
      reason: 'guest',
      message: 'the pool tank is not imported',
    });
    house.fake.state = 'ONLINE';
    expect(await client.volumes()).toEqual([]);
  });

  it('is asked nothing any more by a client that was called off, but what tidies up', async () => {
    const off = new AbortController();
    const proxy = { path: socket, problem: () => undefined, close: () => Promise.resolve() };
    const other = clientOver(proxy, 'test', off.signal);
    try {
      expect(await other.volumes()).toEqual([]);
      off.abort();
      house.fake.calls.length = 0;
      expect(await failureOf(other.createVolume({ name: 'data', sizeBytes: MiB }))).toMatchObject({
        reason: 'interrupted',
      });
      expect(house.fake.calls).toEqual([]);
      const still = new AbortController().signal;
      expect(await failureOf(other.cancelImport('none', still))).toMatchObject({ reason: 'not-found' });
    } finally {
      await other.close();
    }
  });

  it('names no more of what is in the way than an answer has room for', async () => {
    await client.createVolume({ name: 'data', sizeBytes: MiB });
    await client.createSnapshot('data', 'first');
    await client.createTemplate({ name: 'base', volume: 'data', snapshot: 'first' });
    for (let each = 0; each < 2000; each += 1)
      await house.fake.command(['zfs', 'clone', 'tank/data@first', `tank/${'é'.repeat(100)}${each}`], {
        deadline: 1,
      });
    const refused = await failureOf(client.deleteTemplate('base'));
    expect(refused.reason).toBe('wrong-state');
    expect(refused.message).toMatch(/^the template "base" can't be deleted: .* \.\.\.$/);
    expect(await failureOf(client.deleteVolume('data'))).toMatchObject({ reason: 'wrong-state' });
  });

  it('tells a watcher all that is there, and then every change', async () => {
    await client.createVolume({ name: 'data', sizeBytes: MiB });
    const stop = new AbortController();
    const seen: string[] = [];
    const wordsOf = (told: Watched): string => `${told.event} ${told.volume?.name ?? ''}`.trim();
    for await (const told of client.watch(stop.signal)) {
      seen.push(wordsOf(told));
      if (told.event === 'synced') {
        await client.createSnapshot('data', 'first');
        await client.createVolume({ name: 'more', sizeBytes: MiB });
        await client.deleteVolume('data');
      }
      if (told.event === 'volumeDeleted') stop.abort();
    }
    expect(seen).toEqual(['volume data', 'synced', 'volume data', 'volume more', 'volumeDeleted']);
  });

  it('tells what an import made, whatever else has the name that its id is', async () => {
    await client.createVolume({ name: 'data', sizeBytes: MiB });
    await client.createSnapshot('data', 'first');
    await client.createTemplate({ name: 'mine', volume: 'data', snapshot: 'first' });
    const description = {
      name: 'disk',
      target: 'IMPORT_TARGET_TEMPLATE',
      sizeBytes: MiB,
      id: 'mine',
    } as const;
    const pieces = Readable.from([Buffer.alloc(MiB, 'zfsdev')]) as AsyncIterable<Buffer>;
    expect(await client.upload(description, pieces)).toMatchObject({ template: { name: 'disk' } });
    expect(await client.import('mine')).toMatchObject({ template: { id: 'mine', name: 'disk' } });
  });

  it('exports the content of a volume, without its holes, and leaves nothing', async () => {
    await client.createVolume({ name: 'data', sizeBytes: 4 * MiB });
    const content = Buffer.alloc(4 * MiB);
    content.fill('x', MiB, MiB + 1000);
    const exported: Buffer[] = [];
    let sha256 = '';
    const devices = join(house.folder, 'devices', 'tank', '.zvold');
    await mkdir(devices, { recursive: true });
    // The fake's clones are made empty.
    house.fake.before = async (argv) => {
      if (argv[1] === 'clone')
        await writeFile(join(devices, (argv.at(-1) ?? '').split('/').at(-1) ?? ''), content);
    };
    for await (const message of client.export({ volume: 'data' }, new AbortController().signal)) {
      if (message.data.length > 0) exported.push(message.data);
      ({ sha256 } = message);
    }
    expect(Buffer.concat(exported)).toHaveLength(512 * 1024);
    expect(sha256).toBe(createHash('sha256').update(content).digest('hex'));
    expect([...house.fake.datasets.keys()]).toEqual(['tank', 'tank/data', 'tank/.zvold']);
  });
});

/** A client that knows nothing but a published contract. */
function generated(
  file: string,
  name: string,
): (method: string, request?: object) => Promise<Record<string, unknown>> {
  const made = generatedClient(file, name, `unix:${socket}`);
  clients.push(made);
  return made.ask;
}

it('an export that its client does not read is given up, and holds its volume no more', async () => {
  house.stallAfter = 100;
  house.anew();
  await listener.close();
  listener = await listen(daemon(), { socket });
  await client.createVolume({ name: 'data', sizeBytes: 16 * MiB });
  house.fake.before = async (argv) => {
    if (argv[1] !== 'clone') return;
    const device = house.device(argv.at(-1) ?? '');
    await mkdir(dirname(device), { recursive: true });
    await writeFile(device, Buffer.alloc(16 * MiB, 'x'));
  };
  const messages = client.export({ volume: 'data' }, new AbortController().signal)[Symbol.asyncIterator]();
  expect((await messages.next()).value).toMatchObject({ totalBytes: 16 * MiB });
  await expect
    .poll(() => [...house.fake.datasets.keys()], { timeout: 30_000 })
    .toEqual(['tank', 'tank/data', 'tank/.zvold']);
  const reading = (async () => {
    for (let next = await messages.next(); !next.done; next = await messages.next());
  })();
  expect(await failureOf(reading)).toMatchObject({
    reason: 'deadline',
    message: 'the client took nothing for 0.1 s',
  });
  await client.deleteVolume('data');
});

describe('health and reflection', () => {
  it('are answered as everywhere', async () => {
    const health = generated(
      'node_modules/grpc-health-check/proto/health/v1/health.proto',
      'grpc.health.v1.Health',
    );
    expect(await health('Check', { service: 'zfsdev.zvol.v1.ZvolService' })).toMatchObject({
      status: 'SERVING',
    });
  });
});
