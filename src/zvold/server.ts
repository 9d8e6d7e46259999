import {
  Metadata,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  status,
  type ServerInterceptor,
  type ServerOptions,
} from '@grpc/grpc-js';
import { timingSafeEqual } from 'node:crypto';
import { chmodSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server as NetServer, type Socket } from 'node:net';
import { contract } from './contract.ts';
import { serviceDefinition } from './definitions.ts';
import { mvirtService } from './mvirt.ts';
import { zvolService, type Daemon } from './service.ts';
import { addHealth, addReflection } from './standard-services.ts';

/** Where clients come from. */
export interface Listening {
  /** A socket that only its owner can open, or one that systemd handed over. */
  readonly socket: string | { readonly fd: number };
  /** A port that others can reach: with TLS, and a certificate or a token of theirs. Nobody is let in without. */
  readonly tcp?: Tcp | undefined;
}

export interface Tcp {
  readonly address: string;
  readonly certificate: string;
  readonly key: string;
  /** Certificates of those who may come. */
  readonly clientAuthority?: string | undefined;
  /** Or what they have to know: a file with one line. */
  readonly tokenFile?: string | undefined;
  /** Milliseconds after which clients are asked whether they are still there; a minute unless told. */
  readonly askAfter?: number | undefined;
  /** Milliseconds that they have for the answer; 20 s unless told. */
  readonly answerWithin?: number | undefined;
}

const services = ['zfsdev.zvol.v1.ZvolService', 'mvirt.zfs.ZfsService'] as const;

/** Messages are small; uploads come in pieces of this at most. */
const channelOptions = {
  'grpc.max_receive_message_length': 8 * 1024 * 1024,
  'grpc.max_send_message_length': 64 * 1024 * 1024,
};

/** Milliseconds after which a client over a network is asked whether it is still there, and those that it has for the answer. */
const [askAfter, answerWithin] = [60_000, 20_000];

export interface Listener {
  /** Takes no more calls, and ends those that go on. */
  close(): Promise<void>;
}

/** Answers clients. @throws Error if a place can't be listened at */
export async function listen(daemon: Daemon, { socket, tcp }: Listening): Promise<Listener> {
  // Whatever is wrong with it is said before anybody is let in.
  const outside = tcp ? serverFor(daemon, tcp) : undefined;
  const inside = serverFor(daemon, undefined);
  const injector = inside.createConnectionInjector(ServerCredentials.createInsecure());
  const door = createServer((connection: Socket) => injector.injectConnection(connection));
  await openDoor(door, socket);
  if (outside && tcp) await bind(outside, tcp);
  return {
    close: async () => {
      door.close();
      if (typeof socket === 'string') rmSync(socket, { force: true });
      injector.drain(2_000);
      for (const server of [inside, outside]) server?.forceShutdown();
      await Promise.resolve();
    },
  };
}

function serverFor(daemon: Daemon, tcp: Tcp | undefined): Server {
  const token = tcp?.tokenFile === undefined ? undefined : readFileSync(tcp.tokenFile, 'utf8').trim();
  if (token === '') throw new Error(`there is no token in ${tcp?.tokenFile ?? ''}`);
  const server = new Server({
    ...channelOptions,
    ...(tcp === undefined ? {} : keepalive(tcp)),
    ...(token === undefined ? {} : { interceptors: [requireToken(token)] }),
  });
  server.addService(serviceDefinition(contract, services[0]), zvolService(daemon));
  server.addService(serviceDefinition(contract, services[1]), mvirtService(daemon));
  addHealth(server, services, daemon.keeper.watch, daemon);
  addReflection(server, daemon.report);
  return server;
}

/** Nobody tells of a client whose network is gone: its calls would go on for ever. */
function keepalive(tcp: Tcp): ServerOptions {
  return {
    'grpc.keepalive_time_ms': tcp.askAfter ?? askAfter,
    'grpc.keepalive_timeout_ms': tcp.answerWithin ?? answerWithin,
  };
}

function openDoor(door: NetServer, place: Listening['socket']): Promise<void> {
  return new Promise((resolve, reject) => {
    door.once('error', reject);
    if (typeof place !== 'string') return door.listen(place, resolve);
    rmSync(place, { force: true });
    // Its folder is the owner's alone; the mode says so as well.
    const before = process.umask(0o177);
    door.listen(place, () => {
      process.umask(before);
      chmodSync(place, 0o600);
      resolve();
    });
  });
}

function bind(server: Server, { address, certificate, key, clientAuthority, tokenFile }: Tcp): Promise<void> {
  if (clientAuthority === undefined && tokenFile === undefined)
    throw new Error('a port for others wants their certificates (--client-ca) or a token (--token-file)');
  const authority = clientAuthority === undefined ? null : readFileSync(clientAuthority);
  const pair = { cert_chain: readFileSync(certificate), private_key: readFileSync(key) };
  const credentials = ServerCredentials.createSsl(authority, [pair], authority !== null);
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error) => (error ? reject(error) : resolve()));
  });
}

/** Lets nobody in who doesn't know the token. */
function requireToken(token: string): ServerInterceptor {
  const wanted = Buffer.from(`Bearer ${token}`);
  return (_, call) =>
    new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata: (metadata, proceed) => {
            const given = Buffer.from(String(metadata.get('authorization')[0] ?? ''));
            if (given.length === wanted.length && timingSafeEqual(given, wanted)) return proceed(metadata);
            call.sendStatus({
              code: status.UNAUTHENTICATED,
              details: 'the token is wrong or missing',
              metadata: new Metadata(),
            });
          },
        }),
    });
}
