import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Failure, hasCode } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { checkSocketPath } from '../host/paths.ts';
import { isSeeded } from '../vm/drivers.ts';
import { guestTo } from '../vm/lifecycle.ts';
import { takeSocketPlace } from './sockets.ts';

const guestSocket = '/run/zfsdev/zvold.sock';

/** A socket of this host that only its owner can open, and that leads to one in a guest. */
export interface Proxy {
  readonly path: string;
  /** Why the last connection could not be made, if it could not. */
  readonly problem: () => Error | undefined;
  readonly close: () => Promise<void>;
}

/**
 * A socket of this host that leads to the volume manager in a running machine: at `path`, or in the state home. A machine
 * that boots without zfsdev's seed gets the volume manager first, if it has none or another one.
 * @throws Failure `wrong-state` for a machine that does not run, `guest` for one that can't be reached, `already-exists` and
 *   `usage` for a path that can't be a socket
 */
export async function proxyTo(ctx: Context, name: InstanceName, path?: string): Promise<Proxy> {
  const { instance, channel } = await guestTo(ctx, name);
  if (!isSeeded(instance)) {
    const { bringZvold } = await import('./bring.ts');
    await bringZvold(ctx, instance, channel);
  }
  const connect = (): Promise<Duplex> => channel.connect(guestSocket, ctx.signal);
  if (path !== undefined) return openProxy(connect, path);
  const place = await takeSocketPlace(ctx);
  try {
    const proxy = await openProxy(connect, place.path);
    return { ...proxy, close: () => proxy.close().finally(place.release) };
  } catch (error) {
    await place.release();
    throw error;
  }
}

/** Opens a socket each of whose connections `connect` leads on. @throws Failure `already-exists`, `usage` */
export async function openProxy(connect: () => Promise<Duplex>, path: string): Promise<Proxy> {
  checkSocketPath(path);
  const open = new Set<Socket>();
  let problem: Error | undefined;
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => open.delete(socket));
    socket.pause();
    connect().then(
      (guest) => {
        problem = undefined;
        lead(socket, guest);
      },
      (error: unknown) => {
        problem = error instanceof Error ? error : new Error(String(error));
        socket.destroy();
      },
    );
  });
  await listenPrivately(server, path);
  return {
    path,
    problem: () => problem,
    close: async () => {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Nobody else can open it, from its first moment on. */
async function listenPrivately(server: Server, path: string): Promise<void> {
  const listening = once(server, 'listening');
  // The file is made within the call, so that nothing else is made under this mask.
  const before = process.umask(0o177);
  server.listen(path);
  process.umask(before);
  try {
    await listening;
  } catch (error) {
    if (!hasCode(error, 'EADDRINUSE')) throw error;
    throw new Failure('already-exists', `there is something at ${path} already`, {
      hint: `name another place for the socket, or remove that one: rm ${path}`,
      cause: error,
    });
  }
}

/** Each end takes the other along. */
function lead(socket: Socket, guest: Duplex): void {
  guest.on('error', () => socket.destroy());
  // It was given up while the way to the guest was made.
  if (socket.destroyed) return void guest.destroy();
  guest.once('close', () => socket.destroy());
  socket.once('close', () => guest.destroy());
  socket.pipe(guest);
  guest.pipe(socket);
}
