import { Client, credentials, Metadata, status, type ChannelCredentials } from '@grpc/grpc-js';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { listen, type Listener, type Tcp } from '../../../src/zvold/server.ts';
import { call } from '../../support/call.ts';
import { generatedClient } from '../../support/generated-client.ts';
import { ZvoldHouse } from './support.ts';

let house: ZvoldHouse;
let listener: Listener | undefined;

beforeEach(async () => {
  house = await ZvoldHouse.open();
  authority('ours');
  signed('localhost', 'ours');
});
afterEach(async () => {
  await listener?.close();
  listener = undefined;
  await house.close();
});

const at = (file: string): string => join(house.folder, file);
const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'] as const;

/** An authority's certificate, which it signed itself. */
function authority(name: string): void {
  const files = ['-keyout', at(`${name}.key`), '-out', at(`${name}.crt`)];
  call('openssl', 'req', '-x509', ...key, '-days', '2', '-subj', `/CN=${name}`, ...files);
}

/** A certificate that an authority has signed, for a host's name or a client's. */
function signed(name: string, by: string): void {
  call('openssl', 'req', ...key, '-subj', `/CN=${name}`, '-keyout', at(`${name}.key`), '-out', at('request'));
  const ours = ['-CA', at(`${by}.crt`), '-CAkey', at(`${by}.key`), '-CAcreateserial', '-days', '2'];
  call('openssl', 'x509', '-req', '-in', at('request'), ...ours, '-out', at(`${name}.crt`));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

/** Opens the daemon to a network. @returns its port */
async function open(tcp: Partial<Tcp>): Promise<number> {
  const { keeper, imports, exports } = house;
  const daemon = { keeper, imports, exports, version: '1', openzfs: '', report: () => undefined };
  const port = await freePort();
  const pair = { certificate: at('localhost.crt'), key: at('localhost.key') };
  listener = await listen(daemon, {
    socket: at('s'),
    tcp: { address: `127.0.0.1:${port}`, ...pair, ...tcp },
  });
  return port;
}

/** What a client has to show: the certificate of this name, or none. */
async function shown(name?: string): Promise<ChannelCredentials> {
  const trusted = await readFile(at('ours.crt'));
  if (name === undefined) return credentials.createSsl(trusted);
  return credentials.createSsl(trusted, await readFile(at(`${name}.key`)), await readFile(at(`${name}.crt`)));
}

/** Asks for the list of volumes, as bytes. @throws ServiceError */
function ask(port: number, channel: ChannelCredentials, token?: string): Promise<unknown> {
  return new Promise((done, failed) => {
    const over = new Client(`localhost:${port}`, channel);
    const metadata = new Metadata();
    if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
    over.makeUnaryRequest(
      '/zfsdev.zvol.v1.ZvolService/ListVolumes',
      () => Buffer.alloc(0),
      (bytes: Buffer) => bytes,
      {},
      metadata,
      (error, response) => {
        over.close();
        if (error) failed(error);
        else done(response);
      },
    );
  });
}

it('a port without certificates or a token of those who may come is not opened', async () => {
  await expect(open({})).rejects.toThrow('--token-file');
  await writeFile(at('token'), '\n', { mode: 0o600 });
  await expect(open({ tokenFile: at('token') })).rejects.toThrow(`there is no token in ${at('token')}`);
});

it('a token lets in who has it, and nobody with another one', async () => {
  await writeFile(at('token'), 'a secret of many words\n', { mode: 0o600 });
  const port = await open({ tokenFile: at('token') });
  const unauthenticated = { code: status.UNAUTHENTICATED };
  await expect(ask(port, await shown())).rejects.toMatchObject(unauthenticated);
  await expect(ask(port, await shown(), 'a guess')).rejects.toMatchObject(unauthenticated);
  await expect(ask(port, await shown(), 'a secret of many words')).resolves.toBeDefined();
});

it('a certificate of the authority lets in, and neither another one nor none', async () => {
  authority('theirs');
  signed('friend', 'ours');
  signed('stranger', 'theirs');
  const port = await open({ clientAuthority: at('ours.crt') });
  await expect(ask(port, await shown('friend'))).resolves.toBeDefined();
  const refused = { code: status.UNAVAILABLE };
  house.fake.calls.length = 0;
  await expect(ask(port, await shown('stranger'))).rejects.toMatchObject(refused);
  await expect(ask(port, await shown())).rejects.toMatchObject(refused);
  await expect(ask(port, credentials.createInsecure())).rejects.toMatchObject(refused);
  // None of them came as far as to have anything asked.
  expect(house.fake.calls).toEqual([]);
  await expect(ask(port, await shown('friend'))).resolves.toBeDefined();
});

it('who asks for a certificate and a token gets in nobody with one of them', async () => {
  signed('friend', 'ours');
  await writeFile(at('token'), 'a secret of many words\n', { mode: 0o600 });
  const port = await open({ clientAuthority: at('ours.crt'), tokenFile: at('token') });
  await expect(ask(port, await shown('friend'))).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
  const token = 'a secret of many words';
  await expect(ask(port, await shown(), token)).rejects.toMatchObject({ code: status.UNAVAILABLE });
  await expect(ask(port, await shown('friend'), token)).resolves.toBeDefined();
});

/** Leads connections to a port, until it carries nothing any more and says nothing of that. */
async function lead(port: number): Promise<{ server: Server; port: number; cut: () => void }> {
  const open: Socket[] = [];
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    open.push(near, far);
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.pipe(far);
    far.pipe(near);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = (): void => open.forEach((socket) => socket.unpipe().pause());
  return { server, port: (server.address() as AddressInfo).port, cut };
}

it('a client whose network is gone is given up, without a word of it', async () => {
  signed('friend', 'ours');
  const port = await open({ clientAuthority: at('ours.crt'), askAfter: 200, answerWithin: 1000 });
  const way = await lead(port);
  const proto = resolve('proto/mvirt/zfs/zfs.proto');
  const target = `localhost:${way.port}`;
  const client = generatedClient(proto, 'mvirt.zfs.ZfsService', target, await shown('friend'));
  client
    .stream('WatchVolumes')
    .on('error', () => undefined)
    .resume();
  await expect.poll(() => house.keeper.hub.isWatched, { timeout: 30_000 }).toBe(true);
  way.cut();
  await expect.poll(() => house.keeper.hub.isWatched, { timeout: 30_000 }).toBe(false);
  client.close();
  way.server.close();
});
