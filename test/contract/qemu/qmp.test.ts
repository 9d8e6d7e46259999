import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { connectQmp, type Qmp } from '../../../src/qemu/qmp.ts';
import { qmpPeer, refuses, returns, type Expected, type QmpPeer } from '../../fakes/qmp-peer.ts';

const never = new AbortController().signal;
let folder: string;
let socket: string;
let peer: QmpPeer | undefined;
let qmp: Qmp | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-qmp-'));
  socket = join(folder, 'qmp.sock');
});

afterEach(async () => {
  qmp?.close();
  await peer?.close();
  qmp = peer = undefined;
  await rm(folder, { recursive: true, force: true });
});

async function talk(...script: Expected[]): Promise<Qmp> {
  peer = await qmpPeer(socket, script);
  qmp = await connectQmp(socket, { deadline: deadlineIn(30_000), signal: never });
  return qmp;
}

test('greets, agrees on capabilities, runs commands', async () => {
  const client = await talk(
    returns('query-status', { status: 'running', running: true }),
    returns('job-dismiss', {}, { id: 'save' }),
  );
  expect(client.version).toBe('7.2.22');
  expect(await client.execute('query-status')).toEqual({ status: 'running', running: true });
  await client.execute('job-dismiss', { id: 'save' });
  peer?.verify();
});

test('answers find their commands, whatever their order', async () => {
  let first: (() => void) | undefined;
  const client = await talk(
    { execute: 'query-jobs', reply: ({ id }, { send }) => (first = () => send({ return: ['jobs'], id })) },
    {
      execute: 'query-status',
      reply: ({ id }, { send }) => {
        send({ return: 'status', id });
        first?.();
      },
    },
  );
  expect(await Promise.all([client.execute('query-jobs'), client.execute('query-status')])).toEqual([
    ['jobs'],
    'status',
  ]);
});

test("a refusal carries QEMU's class and words, and the conversation goes on", async () => {
  const client = await talk(
    refuses('nonsense', 'CommandNotFound', 'The command nonsense has not been found'),
    returns('cont'),
  );
  await expect(client.executeAny('nonsense')).rejects.toMatchObject({
    reason: 'process',
    message: 'QEMU refused "nonsense": The command nonsense has not been found',
    data: { class: 'CommandNotFound' },
  });
  await client.execute('cont');
  peer?.verify();
});

test('all that QEMU 7.2 said in a recorded conversation is understood', async () => {
  const text = await readFile(join(import.meta.dirname, '../../recorded/qemu-7.2/qmp.jsonl'), 'utf8');
  const [greeting = '', ...answers] = text.trimEnd().split('\n');
  // The recorded ids are 1 to 5 for the commands in this order, an event before the last answer.
  const server = createServer((connection) => {
    connection.write(`${greeting}\n`);
    connection.on('data', () => {
      const next = answers.shift() ?? '';
      connection.write(`${next}\n`);
      if (next.includes('"event"')) connection.write(`${answers.shift()}\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const client = await connectQmp(socket, { deadline: deadlineIn(30_000), signal: never });
  const events = client.events();
  expect(await client.execute('query-status')).toMatchObject({ status: 'prelaunch', running: false });
  await expect(client.execute('migrate', { uri: 'bad' })).rejects.toMatchObject({
    data: { class: 'GenericError', desc: "Parameter 'uri' expects a valid migration protocol" },
  });
  await expect(client.executeAny('nonsense')).rejects.toMatchObject({ data: { class: 'CommandNotFound' } });
  await client.execute('quit');
  expect((await events.next()).value).toEqual({
    name: 'SHUTDOWN',
    data: { guest: false, reason: 'host-qmp-quit' },
  });
  client.close();
  await new Promise((resolve) => server.close(resolve));
});

test('events come in order, also those before the first look, and end with the conversation', async () => {
  const client = await talk({
    execute: 'stop',
    reply: ({ id }, { send, socket: connection }) => {
      send({ event: 'STOP', timestamp: { seconds: 1, microseconds: 2 } });
      send({ event: 'BLOCK_IO_ERROR', data: { device: 'disk0' } });
      send({ return: {}, id });
      connection.end();
    },
  });
  const events = client.events();
  await client.execute('stop');
  const seen = [];
  for await (const { name } of events) seen.push(name);
  expect(seen).toEqual(['STOP', 'BLOCK_IO_ERROR']);
});

test('events end when their reader is called off', async () => {
  const client = await talk();
  const controller = new AbortController();
  const next = client.events(controller.signal).next();
  controller.abort();
  expect(await next).toEqual({ done: true, value: undefined });
});

test('when QEMU dies, pending and later commands fail', async () => {
  const client = await talk(
    { execute: 'query-jobs', reply: () => undefined },
    { execute: 'stop', reply: (_, { socket: connection }) => connection.destroy() },
  );
  const calls = [client.execute('query-jobs'), client.execute('stop')];
  for (const call of calls) await expect(call).rejects.toMatchObject({ reason: 'process' });
  await client.ended;
  await expect(client.execute('cont')).rejects.toMatchObject({ reason: 'process' });
});

test('an answer that never comes ends by its deadline, or by the signal', async () => {
  const silent = (execute: string): Expected => ({ execute, reply: () => undefined });
  const client = await talk(silent('stop'), silent('cont'));
  await expect(client.execute('stop', undefined, { deadline: 1 })).rejects.toMatchObject({
    reason: 'deadline',
  });
  const controller = new AbortController();
  const call = client.execute('cont', undefined, { signal: controller.signal });
  controller.abort();
  await expect(call).rejects.toMatchObject({ reason: 'interrupted' });
});

test('nobody listens: no such socket, or a dead one', async () => {
  const connect = (): Promise<Qmp> => connectQmp(socket, { deadline: deadlineIn(30_000), signal: never });
  await expect(connect()).rejects.toMatchObject({ reason: 'wrong-state' });
  await writeFile(socket, '');
  await expect(connect()).rejects.toMatchObject({ reason: 'wrong-state' });
});

test('a peer that never greets, or that speaks something else', async () => {
  peer = await qmpPeer(socket, [], { greeting: null });
  const connect = (milliseconds: number): Promise<Qmp> =>
    connectQmp(socket, { deadline: deadlineIn(milliseconds), signal: never });
  await expect(connect(1)).rejects.toMatchObject({ reason: 'deadline' });
  await peer.close();
  peer = await qmpPeer(socket, [], { greeting: 'SSH-2.0-OpenSSH_9.2' });
  await expect(connect(30_000)).rejects.toMatchObject({
    reason: 'process',
    message: expect.stringContaining('does not speak QMP: SSH-2.0') as string,
  });
});
