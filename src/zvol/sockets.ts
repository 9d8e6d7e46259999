import { randomBytes } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../host/context.ts';
import { makePrivateFolder } from '../host/files.ts';
import { isLocked, lock, lockWaiting } from '../host/lock.ts';
import { checkSocketPath } from '../host/paths.ts';

/** Where one socket can be, which is nobody else's until it is released. */
export interface SocketPlace {
  readonly path: string;
  readonly release: () => Promise<void>;
}

/** The file beside a socket that is locked as long as its program lives. */
const lockOf = (path: string): string => `${path}.lock`;

/**
 * Finds a place for a socket in the state home, and takes away what programs left there that were killed.
 * @throws Failure `usage` if the state home's path is too long for it, `interrupted`
 */
export async function takeSocketPlace({
  paths,
  signal,
}: Pick<Context, 'paths' | 'signal'>): Promise<SocketPlace> {
  const folder = paths.zvolSockets;
  await makePrivateFolder(folder);
  // Nobody is in between making a place and locking it while places are looked through.
  const all = await lockWaiting(paths.lock('zvol-sockets'), signal);
  try {
    await clear(folder);
    const path = join(folder, randomBytes(4).toString('hex'));
    checkSocketPath(path);
    const own = await lock(lockOf(path), path);
    return {
      path,
      release: async () => {
        await remove(path);
        await own.release();
      },
    };
  } finally {
    await all.release();
  }
}

async function clear(folder: string): Promise<void> {
  const places = new Set((await readdir(folder)).map((name) => join(folder, name.replace(/\.lock$/, ''))));
  for (const path of places) if (!(await isLocked(lockOf(path)))) await remove(path);
}

async function remove(path: string): Promise<void> {
  await rm(path, { force: true });
  await rm(lockOf(path), { force: true });
}
