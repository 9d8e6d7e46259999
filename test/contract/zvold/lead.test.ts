import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { leadOver, leadScript } from '../../../src/guest/ssh-lead.ts';

let folder: string;
let path: string;
let server: Server | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-lead-'));
  path = join(folder, 'socket');
});
afterEach(async () => {
  server?.close();
  server = undefined;
  await rm(folder, { recursive: true, force: true });
});

async function serve(answer: (socket: Socket) => void): Promise<void> {
  server = createServer({ allowHalfOpen: true }, answer).listen(path);
  await once(server, 'listening');
}

/** What ssh would run in the guest, run here. */
function lead(): Promise<Duplex> {
  const signal = new AbortController().signal;
  return leadOver({ env: process.env }, [process.execPath, '-e', leadScript, path], {
    path,
    name: 'm1',
    signal,
  });
}

it('carries any bytes both ways, and the ends of both', async () => {
  await serve((socket) => socket.pipe(socket));
  const stream = await lead();
  const sent = Buffer.from(Array.from({ length: 2_000_000 }, (_, i) => (i * 7919) % 256));
  const came = buffer(stream);
  stream.end(sent);
  expect(sent.equals(await came)).toBe(true);
});

it('carries what the other side says first', async () => {
  await serve((socket) => socket.end('\nready'));
  expect((await buffer(await lead())).toString()).toBe('\nready');
});

it('lets go of the socket when it is let go of', async () => {
  const closed = new Promise<void>((resolve) => {
    void serve((socket) =>
      socket
        .resume()
        .once('end', () => socket.end())
        .once('close', () => resolve()),
    ).then(async () => (await lead()).destroy());
  });
  await closed;
});

it('says why it leads nowhere', async () => {
  await expect(lead()).rejects.toMatchObject({ reason: 'guest', detail: `connect ENOENT ${path}` });
});
