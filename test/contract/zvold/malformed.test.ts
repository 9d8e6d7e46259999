import { Client, credentials, status, type ClientWritableStream, type ServiceError } from '@grpc/grpc-js';
import { randomBytes } from 'node:crypto';
import { loadSync } from '@grpc/proto-loader';
import type { ServiceDefinition } from '@grpc/proto-loader';
import { mkdir } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { clientOver } from '../../../src/zvol/client.ts';
import type { ZvoldClient } from '../../../src/zvol/api.ts';
import { listen, type Listener } from '../../../src/zvold/server.ts';
import { ZvoldHouse } from './support.ts';

let house: ZvoldHouse;
let listener: Listener;
let raw: Client;
let client: ZvoldClient;
let server: Server | undefined;
const reports: string[] = [];
const service = loadSync(resolve('proto/zfsdev/zvol/v1/zvol.proto'), {
  includeDirs: [resolve('proto')],
  longs: Number,
})['zfsdev.zvol.v1.ZvolService'] as ServiceDefinition;

beforeEach(async () => {
  house = await ZvoldHouse.open();
  await mkdir(join(house.folder, 'images'));
  const { keeper, imports, exports } = house;
  reports.length = 0;
  const report = (words: string): void => void reports.push(words);
  const path = join(house.folder, 's');
  listener = await listen(
    { keeper, imports, exports, version: '1.2.3', openzfs: '2.3.9', report },
    { socket: path },
  );
  raw = new Client(`unix:${path}`, credentials.createInsecure());
  const proxy = { path, problem: () => undefined, close: () => Promise.resolve() };
  client = clientOver(proxy, 'test', new AbortController().signal);
});

afterEach(async () => {
  raw.close();
  await client.close();
  await listener.close();
  server?.closeAllConnections();
  server?.close();
  server = undefined;
  await house.close();
});

/** Sends bytes as they are; gives the code of the answer. */
function send(method: string, bytes: Buffer): Promise<status> {
  return new Promise((done) => {
    raw.makeUnaryRequest(
      `/zfsdev.zvol.v1.ZvolService/${method}`,
      () => bytes,
      (answer: Buffer) => answer,
      {},
      (error) => done(error?.code ?? status.OK),
    );
  });
}

/** Begins an upload whose messages a test sends; gives the answer as well. */
function upload(): {
  readonly call: ClientWritableStream<object>;
  readonly answer: Promise<ServiceError | null>;
} {
  const { path, requestSerialize, responseDeserialize } = service['UploadImport'] ?? never();
  let begun: ClientWritableStream<object> | undefined;
  const answer = new Promise<ServiceError | null>((done) => {
    begun = raw.makeClientStreamRequest(path, requestSerialize, responseDeserialize, (error) => done(error));
  });
  const call = begun ?? never();
  call.on('error', () => undefined);
  return { call, answer };
}

function never(): never {
  throw new Error('the contract has no uploads');
}

/** The daemon answers as ever, and has met nothing that it did not foresee. */
async function expectUnharmed(): Promise<void> {
  expect(await client.volumes()).toEqual([]);
  expect(await client.imports(false)).toEqual([]);
  expect(reports).toEqual([]);
  await house.expectNothingLeft();
}

describe('bytes that are no message', () => {
  it.each(['CreateVolume', 'StartImport', 'UploadImport', 'Export', 'Watch'])(
    'are refused by %s, and end nothing',
    async (method) => {
      // A field that promises more bytes than there are, and lengths that go on and on.
      for (const bytes of [Buffer.from([0x0a, 0x7f, 0x01]), Buffer.alloc(64, 0xff)])
        expect(await send(method, bytes)).not.toBe(status.OK);
      await expectUnharmed();
    },
  );

  it('of any kind end nothing', async () => {
    for (let round = 0; round < 50; round += 1) await send('StartImport', randomBytes(1 + round * 7));
    await expectUnharmed();
  });
});

describe('an upload', () => {
  const description = { name: 'disk' };

  it.each<readonly [string, readonly object[], status]>([
    ['says nothing', [], status.INVALID_ARGUMENT],
    ['does not say first what is sent', [{ data: Buffer.from('x') }], status.INVALID_ARGUMENT],
    ['says it twice', [{ description }, { description }], status.INVALID_ARGUMENT],
    ['has messages with nothing in them', [{ description }, {}], status.INVALID_ARGUMENT],
    ['sends nothing', [{ description }], status.INVALID_ARGUMENT],
    ['has no name', [{ description: {} }], status.INVALID_ARGUMENT],
    ['has a name with a /', [{ description: { name: '../x' } }], status.INVALID_ARGUMENT],
    ['is of 2^63 bytes', [{ description: { ...description, sizeBytes: 2 ** 63 } }], status.INVALID_ARGUMENT],
    ['is of no bytes', [{ description: { ...description, sizeBytes: 0 } }], status.INVALID_ARGUMENT],
    [
      'is not what its checksum says',
      [{ description: { ...description, sha256: '0'.repeat(64) } }, { data: Buffer.from('x') }],
      status.DATA_LOSS,
    ],
    [
      'is larger than it said',
      [{ description: { ...description, sizeBytes: 1 } }, { data: Buffer.alloc(100_000, 1) }],
      status.INVALID_ARGUMENT,
    ],
  ])('that %s is told so, and ends nothing', async (_, messages, code) => {
    const { call, answer } = upload();
    for (const message of messages) call.write(message);
    call.end();
    expect((await answer)?.code).toBe(code);
    await expectUnharmed();
  });

  it('that says nothing for too long is ended', async () => {
    house.stallAfter = 20;
    const { keeper, exports } = house;
    const path = join(house.folder, 'other');
    const other = await listen(
      { keeper, imports: house.anew(), exports, version: '', openzfs: '', report: () => undefined },
      { socket: path },
    );
    raw.close();
    raw = new Client(`unix:${path}`, credentials.createInsecure());
    expect((await upload().answer)?.code).toBe(status.DEADLINE_EXCEEDED);
    await other.close();
  });

  it('whose client goes is over, whether its turn has come or not', async () => {
    const { call } = upload();
    call.write({ description: { name: 'disk', id: 'mine' } });
    call.write({ data: Buffer.alloc(100_000, 1) });
    await house.reached('mine', 'downloading');
    call.cancel();
    await house.reached('mine', 'cancelled');
    server = createServer(() => undefined);
    await new Promise<void>((done) => server?.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    for (const name of ['one', 'two'])
      await client.startImport({ name, target: 'IMPORT_TARGET_TEMPLATE', id: name }, url);
    const waiting = upload();
    waiting.call.write({ description: { name: 'disk', id: 'waits' } });
    await expect.poll(async () => (await client.imports(false)).length).toBe(3);
    waiting.call.cancel();
    await house.reached('waits', 'cancelled');
    for (const id of ['one', 'two']) await client.cancelImport(id);
    await expectUnharmed();
  });

  it('that is cut off is never taken for a whole one', async () => {
    for (let round = 0; round < 20; round += 1) {
      const { call, answer } = upload();
      const description = { name: 'disk', id: `id-${round}`, sizeBytes: 100_000 };
      call.write({ description: round % 2 === 0 ? description : { ...description, sizeBytes: undefined } });
      call.write({ data: Buffer.alloc(10_000, 1) });
      await house.reached(description.id, round % 2 === 0 ? 'writing' : 'downloading');
      call.cancel();
      await answer;
      await house.reached(description.id, 'cancelled');
    }
    await expectUnharmed();
  });

  it('that is refused is told to its sender at once, who reads no further', async () => {
    let closed = false;
    async function* endless(): AsyncGenerator<Buffer> {
      try {
        for (;;) yield await Promise.resolve(Buffer.alloc(100_000, 1));
      } finally {
        closed = true;
      }
    }
    await expect(
      client.upload({ name: 'disk', target: 'IMPORT_TARGET_TEMPLATE', sizeBytes: 1_000_000 }, endless()),
    ).rejects.toMatchObject({ reason: 'usage', message: expect.stringContaining('has more than') as string });
    expect(closed).toBe(true);
    await expectUnharmed();
  });

  it('whose source can’t be read is cancelled', async () => {
    async function* broken(): AsyncGenerator<Buffer> {
      yield await Promise.resolve(Buffer.alloc(10, 1));
      throw new Error('a disk of the host is broken');
    }
    await expect(
      client.upload({ name: 'disk', target: 'IMPORT_TARGET_TEMPLATE', id: 'mine' }, broken()),
    ).rejects.toThrow('a disk of the host is broken');
    await expect.poll(async () => (await client.imports(false)).length).toBe(0);
    await expectUnharmed();
  });
});

it('an export whose client goes leaves nothing', async () => {
  await client.createVolume({ name: 'data', sizeBytes: 256 * 2 ** 20 });
  const stop = new AbortController();
  for await (const message of client.export({ volume: 'data' }, stop.signal)) {
    expect(message.totalBytes).toBe(256 * 2 ** 20);
    stop.abort();
  }
  await expect.poll(() => [...house.fake.datasets.keys()]).toEqual(['tank', 'tank/data', 'tank/.zvold']);
  await client.deleteVolume('data');
  await expectUnharmed();
});

it('an import of a pool without room is told as that', async () => {
  house.fake.available = 0;
  async function* bytes(): AsyncGenerator<Buffer> {
    yield await Promise.resolve(Buffer.from('content'));
  }
  await expect(
    client.upload({ name: 'disk', target: 'IMPORT_TARGET_TEMPLATE' }, bytes()),
  ).rejects.toMatchObject({ reason: 'no-space' });
});
