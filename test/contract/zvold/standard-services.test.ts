import { Client, credentials, status, type ClientReadableStream, type ServiceError } from '@grpc/grpc-js';
import { loadSync, type PackageDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listen, type Listener } from '../../../src/zvold/server.ts';
import { ZvoldHouse } from './support.ts';

let house: ZvoldHouse;
let listener: Listener;
let client: Client;
const reports: string[] = [];

beforeEach(async () => {
  house = await ZvoldHouse.open();
  reports.length = 0;
  const socket = join(house.folder, 's');
  const { keeper, imports, exports } = house;
  const daemon = { keeper, imports, exports, version: '1.2.3', openzfs: '2.3.9' };
  listener = await listen({ ...daemon, report: (words) => void reports.push(words) }, { socket });
  client = new Client(`unix:${socket}`, credentials.createInsecure());
});

afterEach(async () => {
  client.close();
  await listener.close();
  house.keeper.watch.close();
  await house.close();
  expect(reports).toEqual([]);
});

const modules = resolve(import.meta.dirname, '../../../node_modules');
const health = service(
  loadSync(join(modules, 'grpc-health-check/proto/health/v1/health.proto'), {
    enums: String,
    defaults: true,
  }),
  'grpc.health.v1.Health',
);
const ours = 'zfsdev.zvol.v1.ZvolService';
const theirs = 'mvirt.zfs.ZfsService';

function service(all: PackageDefinition, name: string): ServiceDefinition {
  return all[name] as ServiceDefinition;
}

function call(definition: ServiceDefinition, method: string, request: object): Promise<object> {
  const { path, requestSerialize, responseDeserialize } = methodOf(definition, method);
  return new Promise((done, failed) =>
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, (error, response) =>
      error ? failed(error) : done(response as object),
    ),
  );
}

function methodOf(definition: ServiceDefinition, method: string): ServiceDefinition[string] {
  const found = definition[method];
  if (!found) throw new Error(`there is no ${method}`);
  return found;
}

function watchHealth(name: string): ClientReadableStream<{ status: string }> {
  const { path, requestSerialize, responseDeserialize } = methodOf(health, 'Watch');
  const begun = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {
    service: name,
  }) as ClientReadableStream<{ status: string }>;
  begun.on('error', () => undefined);
  return begun;
}

describe('health', () => {
  it.each(['', ours, theirs])('of "%s" follows the pool', async (name) => {
    expect(await call(health, 'Check', { service: name })).toEqual({ status: 'SERVING' });
    for (const state of [undefined, 'SUSPENDED', 'FAULTED']) {
      house.fake.state = state;
      expect(await call(health, 'Check', { service: name })).toEqual({ status: 'NOT_SERVING' });
    }
    house.fake.state = 'DEGRADED';
    expect(await call(health, 'Check', { service: name })).toEqual({ status: 'SERVING' });
  });

  it('of a service that there is not is not known', async () => {
    await expect(call(health, 'Check', { service: 'none' })).rejects.toMatchObject({
      code: status.NOT_FOUND,
    });
    const begun = watchHealth('none');
    for await (const told of begun as AsyncIterable<{ status: string }>) {
      expect(told).toEqual({ status: 'SERVICE_UNKNOWN' });
      begun.cancel();
      break;
    }
  });

  it('is listed for all', async () => {
    house.fake.state = undefined;
    const away = { status: 'NOT_SERVING' };
    expect(await call(health, 'List', {})).toEqual({ statuses: { '': away, [ours]: away, [theirs]: away } });
  });

  it('is told to watchers whenever it changes', async () => {
    const seen: string[] = [];
    const begun = watchHealth(ours);
    for await (const told of begun as AsyncIterable<{ status: string }>) {
      seen.push(told.status);
      if (seen.length === 1) house.fake.state = 'SUSPENDED';
      if (seen.length === 2) house.fake.state = 'ONLINE';
      if (seen.length === 3) break;
    }
    begun.cancel();
    expect(seen).toEqual(['SERVING', 'NOT_SERVING', 'SERVING']);
  });
});

describe('reflection', () => {
  it.each(['v1', 'v1alpha'])('tells in %s what services there are, and what is in them', async (version) => {
    const file = join(modules, `@grpc/reflection/build/proto/grpc/reflection/${version}/reflection.proto`);
    const definition = service(
      loadSync(file, { defaults: false, oneofs: true }),
      `grpc.reflection.${version}.ServerReflection`,
    );
    const { path, requestSerialize, responseDeserialize } = methodOf(definition, 'ServerReflectionInfo');
    const stream = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
    stream.write({ listServices: '' });
    stream.write({ fileContainingSymbol: `${ours}.CreateVolume` });
    stream.write({ fileContainingSymbol: 'nothing.of.the.kind' });
    stream.end();
    const answers: Record<string, unknown>[] = [];
    for await (const answer of stream) answers.push(answer as Record<string, unknown>);
    expect(answers).toMatchObject([
      {
        listServicesResponse: {
          service: expect.arrayContaining([{ name: ours }, { name: theirs }]) as unknown,
        },
      },
      { fileDescriptorResponse: { fileDescriptorProto: expect.any(Array) as unknown } },
      { errorResponse: { errorCode: status.NOT_FOUND } },
    ]);
  });

  it('ends with its client, and with bytes that are no message', async () => {
    const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
    const raw = (bytes: Buffer): Buffer => bytes;
    const gone = client.makeBidiStreamRequest(path, raw, raw);
    const ended = new Promise<ServiceError>((done) => gone.once('error', done));
    gone.cancel();
    expect((await ended).code).toBe(status.CANCELLED);
    const wrong = client.makeBidiStreamRequest(path, raw, raw);
    const refused = new Promise<ServiceError>((done) => wrong.once('error', done));
    wrong.on('data', () => undefined);
    wrong.write(Buffer.alloc(20, 0xff));
    expect((await refused).code).toBe(status.INTERNAL);
    expect(await call(health, 'Check', { service: '' })).toEqual({ status: 'SERVING' });
  });
});

describe('bytes that are no message', () => {
  const wrong = Buffer.alloc(20, 0xff);
  const raw = (bytes: Buffer): Buffer => bytes;

  it.each([`/${ours}/CreateVolume`, `/${theirs}/CreateVolume`, '/grpc.health.v1.Health/Check'])(
    'are refused by %s, and the next call is answered',
    async (path) => {
      const refused = new Promise<object>((done, failed) =>
        client.makeUnaryRequest(path, raw, raw, wrong, (error, response) =>
          error ? failed(error) : done(response ?? {}),
        ),
      );
      await expect(refused).rejects.toMatchObject({ code: status.INTERNAL });
      expect(await call(health, 'Check', { service: '' })).toEqual({ status: 'SERVING' });
    },
  );

  it('end a stream, and nothing else', async () => {
    const watching = client.makeServerStreamRequest(`/${ours}/Watch`, raw, raw, wrong);
    watching.on('data', () => undefined);
    const sending = client.makeClientStreamRequest(`/${ours}/UploadImport`, raw, raw, () => undefined);
    const codes = [watching, sending].map((stream) => {
      stream.on('error', () => undefined);
      return new Promise<number>((done) => stream.once('status', ({ code }: { code: number }) => done(code)));
    });
    sending.write(wrong);
    for (const code of await Promise.all(codes)) expect(code).not.toBe(status.OK);
    expect(await call(health, 'Check', { service: '' })).toEqual({ status: 'SERVING' });
  });
});
