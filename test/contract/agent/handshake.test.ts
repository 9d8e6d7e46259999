import { randomBytes } from 'node:crypto';
import { rename, writeFile } from 'node:fs/promises';
import { createServer, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hello, prove } from '../../../src/agent/handshake.ts';
import { encodeHeader, FrameType } from '../../../src/agent/protocol.ts';
import { askFacts } from '../../../src/guest/agent-channel.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { failure, patience, quick, startTestAgent, type TestAgent } from './support.ts';

let agent: TestAgent;

beforeAll(async () => {
  agent = await startTestAgent({ arguments: ['--handshake-deadline', '500', '--strangers', '8'] });
});
afterAll(() => agent.remove());

/** Everything the agent says until it ends the connection. */
function heard(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => undefined);
  return new Promise((resolve) => socket.once('close', () => resolve(Buffer.concat(chunks))));
}

function firstBytes(socket: Socket, length: number): Promise<Buffer> {
  return new Promise((resolve) => {
    let all = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      all = Buffer.concat([all, chunk]);
      if (all.length >= length) resolve(all);
    });
  });
}

function open(): Socket {
  return connect({ host: '127.0.0.1', port: agent.port });
}

const facts = Buffer.from('{"kind":"facts"}');
const request = Buffer.concat([encodeHeader(FrameType.request, facts.length), facts]);

/** Speaks as a host does and gives what it sent, and what it heard. */
async function converse(secret: string): Promise<{ sent: Buffer; answer: Buffer }> {
  const socket = open();
  const all = heard(socket);
  const nonce = randomBytes(16);
  const greeting = Buffer.concat([hello, nonce]);
  socket.write(greeting);
  const agentHello = await firstBytes(socket, 52);
  const proof = prove(Buffer.from(secret, 'hex'), 'host', nonce, agentHello.subarray(4, 20));
  socket.write(Buffer.concat([proof, request]));
  return { sent: Buffer.concat([greeting, proof, request]), answer: (await all).subarray(52) };
}

describe('the agent', () => {
  it('answers who proves the secret', async () => {
    expect((await converse(agent.secret)).answer.toString()).toContain('"hostname":"saved"');
  });

  it('says nothing to a wrong proof', async () => {
    expect((await converse(randomBytes(32).toString('hex'))).answer).toHaveLength(0);
  });

  it('says nothing to a recorded conversation', async () => {
    const { sent } = await converse(agent.secret);
    const socket = open();
    const all = heard(socket);
    socket.write(sent);
    expect((await all).length).toBeLessThanOrEqual(52);
  });

  it('hangs up on garbage, on silence, and on one byte at a time', async () => {
    for (const words of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.alloc(100_000), Buffer.alloc(0)]) {
      const socket = open();
      const all = heard(socket);
      socket.write(words);
      expect(await all).toHaveLength(0);
    }
    const slow = open();
    const all = heard(slow);
    const timer = setInterval(() => slow.write('z'), 20);
    await all;
    clearInterval(timer);
  });

  it('hangs up on a request that is too long, or is none', async () => {
    const secret = Buffer.from(agent.secret, 'hex');
    for (const bytes of [encodeHeader(FrameType.request, 0xffffffff), encodeHeader(FrameType.stdout, 1)]) {
      const socket = open();
      const all = heard(socket);
      socket.write(Buffer.concat([hello, Buffer.alloc(16)]));
      const agentHello = await firstBytes(socket, 52);
      socket.write(
        Buffer.concat([prove(secret, 'host', Buffer.alloc(16), agentHello.subarray(4, 20)), bytes]),
      );
      expect(await all).toHaveLength(52);
    }
  });

  it('serves on while strangers take all places, once those are gone', async () => {
    const strangers = Array.from({ length: 50 }, open);
    const closed = strangers.map(heard);
    const { stdout } = await agent.channel().exec(['echo', 'on'], quick);
    expect(stdout).toBe('on');
    await Promise.all(closed);
  });

  it('takes a new secret at the next connection', async () => {
    const other = randomBytes(32).toString('hex');
    const key = join(agent.root, 'etc/zfsdev/agent.key');
    await rename(key, `${key}.old`);
    expect((await failure(askFacts(agent.target, patience()))).data).toMatchObject({ channel: 'no-secret' });
    await writeFile(key, other);
    expect((await failure(askFacts(agent.target, patience()))).data).toMatchObject({
      channel: 'wrong-secret',
    });
    await askFacts({ ...agent.target, secret: () => other }, patience());
    await rename(`${key}.old`, key);
    await askFacts(agent.target, patience());
  });
});

describe('the host', () => {
  async function withServer<T>(
    take: (socket: Socket) => void,
    work: (port: number) => Promise<T>,
  ): Promise<T> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      take(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    try {
      return await work(address.port);
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  const target = (port: number): TestAgent['target'] => ({ ...agent.target, port });

  it('waits for a guest that does not listen yet', async () => {
    let refusals = 3;
    const relay = (socket: Socket): void => {
      refusals -= 1;
      if (refusals >= 0) return void socket.destroy();
      const inner = connect({ host: '127.0.0.1', port: agent.port });
      inner.on('error', () => undefined);
      socket.pipe(inner).pipe(socket);
    };
    await withServer(relay, async (port) => {
      expect((await askFacts(target(port), patience())).hostname).toBe('saved');
    });
    expect(refusals).toBe(-1);
  });

  it.each([
    ['closes at once', (socket: Socket) => void socket.destroy()],
    ['says nothing', () => undefined],
  ])('gives up at the deadline on what %s', async (_what, take) => {
    await withServer(take, async (port) => {
      const began = performance.now();
      const told = await failure(askFacts(target(port), { ...patience(), deadline: deadlineIn(600) }));
      expect(told).toMatchObject({ reason: 'guest', data: { channel: 'not-reachable' } });
      expect(told.hint).toContain('zfsdev inspect zfs-test');
      expect(performance.now() - began).toBeLessThan(3_000);
    });
  });

  it('tells that nothing listens, without waiting for the deadline', async () => {
    const port = await withServer(
      () => undefined,
      (free) => Promise.resolve(free),
    );
    const told = await failure(askFacts(target(port), patience(60_000)));
    expect(told.detail).toContain('not running');
  });

  it('does not trust another program, and shows it no proof', async () => {
    let received = Buffer.alloc(0);
    const take = (socket: Socket): void => {
      socket.on('data', (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        if (received.length === 20) socket.write(Buffer.concat([hello, randomBytes(48)]));
      });
    };
    await withServer(take, async (port) => {
      expect((await failure(askFacts(target(port), patience()))).data).toMatchObject({
        channel: 'wrong-secret',
      });
    });
    expect(received).toHaveLength(20);
    await withServer(
      (socket) => void socket.write('SSH-2.0-OpenSSH\r\n'),
      async (port) => {
        expect((await failure(askFacts(target(port), patience()))).data).toMatchObject({
          channel: 'stranger',
        });
      },
    );
  });

  it('can be interrupted while it waits', async () => {
    await withServer(
      () => undefined,
      async (port) => {
        const interruption = new AbortController();
        setTimeout(() => interruption.abort(), 100);
        const told = await failure(askFacts(target(port), { ...patience(), signal: interruption.signal }));
        expect(told.reason).toBe('interrupted');
      },
    );
  });
});
