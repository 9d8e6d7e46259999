import { mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { exists, makePrivateFolder } from '../host/files.ts';
import type { Context } from '../host/context.ts';
import { lockWaiting } from '../host/lock.ts';

export interface KeyPair {
  readonly privateKey: string;
  readonly publicKey: string;
}

/** The state home's own ed25519 key that opens its guests, made at the first call; gives the public half. */
export async function userPublicKey(ctx: Context): Promise<string> {
  const { keys, privateKey } = ctx.paths;
  await makePrivateFolder(keys);
  const lock = await lockWaiting(ctx.paths.lock('keys'), ctx.signal);
  try {
    if (!exists(privateKey)) {
      const temporary = await generate(ctx, 'zfsdev');
      try {
        // The public half first: a private key without it would be taken for complete.
        await rename(join(temporary, 'key.pub'), `${privateKey}.pub`);
        await rename(join(temporary, 'key'), privateKey);
      } finally {
        await rm(temporary, { recursive: true, force: true });
      }
    }
    return await readFile(`${privateKey}.pub`, 'utf8');
  } finally {
    await lock.release();
  }
}

/** A new host key for one guest; it is handed over with the seed and not kept here. */
export async function newHostKey(ctx: Context, name: string): Promise<KeyPair> {
  await makePrivateFolder(ctx.paths.keys);
  const temporary = await generate(ctx, name);
  try {
    const [privateKey, publicKey] = await Promise.all([
      readFile(join(temporary, 'key'), 'utf8'),
      readFile(join(temporary, 'key.pub'), 'utf8'),
    ]);
    return { privateKey, publicKey };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

async function generate(ctx: Context, comment: string): Promise<string> {
  const folder = await mkdtemp(join(ctx.paths.keys, '.new-'));
  await ctx.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', comment, '-f', join(folder, 'key')], {
    effect: 'write',
    deadline: 30_000,
    signal: ctx.signal,
  });
  return folder;
}
