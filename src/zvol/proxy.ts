import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';

/** A socket of this host that only its owner can open, and that leads to one in a guest. */
export interface Proxy {
  readonly path: string;
  /** Why the last connection could not be made, if it could not. */
  readonly problem: () => Error | undefined;
  readonly close: () => Promise<void>;
}

/** Opens a socket each of whose connections `connect` leads on. */
export async function openProxy(connect: () => Promise<Duplex>): Promise<Proxy> {
  // A folder of its own, 0700, since paths of sockets have to be short.
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-'));
  const path = join(folder, 'zvold');
  const open = new Set<Socket>();
  let problem: Error | undefined;
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => open.delete(socket));
    socket.pause();
    connect().then(
      (guest) => lead(socket, guest),
      (error: unknown) => {
        problem = error instanceof Error ? error : new Error(String(error));
        socket.destroy();
      },
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  await chmod(path, 0o600);
  return {
    path,
    problem: () => problem,
    close: async () => {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Each end takes the other along. */
function lead(socket: Socket, guest: Duplex): void {
  guest.on('error', () => socket.destroy());
  guest.once('close', () => socket.destroy());
  socket.once('close', () => guest.destroy());
  socket.pipe(guest);
  guest.pipe(socket);
}
