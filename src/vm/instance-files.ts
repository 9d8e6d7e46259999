import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { newHostKey, userPublicKey, type KeyPair } from '../guest/keys.ts';
import type { Context } from '../host/context.ts';
import { writeFileAtomically } from '../host/files.ts';
import { appendSeed } from '../image/cpio.ts';
import type { Image } from '../image/store.ts';
import { createOverlay } from '../qemu/img.ts';
import type { Spec } from '../template/spec.ts';
import { seedFiles } from './identity.ts';
import type { State } from './state.ts';
import { agentProgram } from './warm-key.ts';

/** The secrets that were made for an instance. */
export interface Secrets {
  readonly hostKey: KeyPair;
  /** 64 hexadecimal digits. */
  readonly agentKey: string;
}

/**
 * Lays out the files of an instance: an empty overlay on `backing` (the image's disk, or a warm state's), new keys, and
 * the initrd with the seed from which it boots as itself.
 */
export async function layOutInstance(
  ctx: Context,
  spec: Spec,
  state: State,
  from: { readonly image: Image; readonly backing: string },
): Promise<Secrets> {
  const paths = ctx.paths.instance(spec.name);
  const agentKey = randomBytes(32).toString('hex');
  const [hostKey, userKey, program] = await Promise.all([
    newHostKey(ctx, spec.name),
    userPublicKey(ctx),
    readFile(agentProgram()),
    createOverlay(ctx, { path: paths.disk, backing: from.backing, backingFormat: 'qcow2', size: spec.disk }),
    writeFileAtomically(paths.agentKey, `${agentKey}\n`),
  ]);
  const seed = seedFiles(spec, state, userKey, hostKey, { program, key: agentKey });
  await Promise.all([
    writeFileAtomically(paths.knownHosts, `${spec.name} ${hostKey.publicKey}`),
    appendSeed(from.image.initrd, paths.initrd, seed),
  ]);
  return { hostKey, agentKey };
}
