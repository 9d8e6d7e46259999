import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { together } from '../core/together.ts';
import { newHostKey, userPublicKey } from '../guest/keys.ts';
import type { Context } from '../host/context.ts';
import { writeFileAtomically } from '../host/files.ts';
import { requireKernel } from '../image/kernel-store.ts';
import { appendSeed } from '../image/cpio.ts';
import type { Image } from '../image/store.ts';
import { createOverlay } from '../qemu/img.ts';
import type { Spec } from '../template/spec.ts';
import { seedFiles, type Secrets } from './identity.ts';
import type { State } from './state.ts';
import { guestProgram } from './warm-key.ts';

/** Makes an instance's disk: an empty overlay on `backing` (the image's disk, or a warm state's). */
export async function layOutDisk(ctx: Context, { name, disk: size }: Spec, backing: string): Promise<void> {
  const path = ctx.paths.instance(name).disk;
  await createOverlay(ctx, { path, backing, backingFormat: 'qcow2', size });
}

/** Gives an instance new keys, and the initrd with the seed from which it boots as itself. */
export async function layOutIdentity(ctx: Context, spec: Spec, state: State, image: Image): Promise<Secrets> {
  const paths = ctx.paths.instance(spec.name);
  const agentKey = randomBytes(32).toString('hex');
  const [hostKey, userKey, program, zvold] = await together([
    newHostKey(ctx, spec.name),
    userPublicKey(ctx),
    readFile(guestProgram('agent.mjs')),
    readFile(guestProgram('zvold.cjs')),
    writeFileAtomically(paths.agentKey, `${agentKey}\n`),
  ]);
  const initrd = spec.kernel ? requireKernel(ctx.paths, spec.kernel).initrd : image.initrd;
  const seed = seedFiles(spec, state, userKey, hostKey, { agent: { program, key: agentKey }, zvold });
  await together([
    writeFileAtomically(paths.knownHosts, `${spec.name} ${hostKey.publicKey}`),
    appendSeed(initrd, paths.initrd, seed),
  ]);
  return { hostKey, agentKey };
}
