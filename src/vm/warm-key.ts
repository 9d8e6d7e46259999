import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { bytes } from '../core/bytes.ts';
import { parseName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { findPackageRoot } from '../host/package-root.ts';
import { recipeOf } from '../image/recipe.ts';
import { chooseAccelerator } from '../qemu/accelerator.ts';
import { planArgv } from '../qemu/argv.ts';
import { fingerprint, findQemu, hostArchitecture } from '../qemu/binary.ts';
import { kernelCommandLine, type Accelerator, nowhere } from '../qemu/machine.ts';
import { builtImage, type Spec } from '../template/spec.ts';
import { digestOf, hostCpu, warmFormat } from './warm-store.ts';

export interface WarmKey {
  readonly key: string;
  readonly accelerator: Accelerator;
  readonly imageDigest: string;
  readonly qemu: string;
}

/** Where the bundles lie that run in guests: the command channel's agent, and the volume manager. */
export function guestProgram(name: 'agent.mjs' | 'zvold.cjs'): string {
  return join(findPackageRoot(), 'dist', 'guest', name);
}

/**
 * The key of the warm state that fits a spec: a digest of all that matters to a machine in saved memory. What differs
 * in anything has another key, so that a stale fork can't happen.
 */
export async function warmKeyOf(ctx: Context, spec: Spec): Promise<WarmKey> {
  const architecture = hostArchitecture();
  const [{ binary, version }, { accelerator }, { digest }, agent, zvold] = await Promise.all([
    findQemu(ctx, architecture),
    chooseAccelerator(ctx, { architecture, choice: spec.accelerator }),
    recipeOf(builtImage(spec)),
    digestOf(guestProgram('agent.mjs')),
    digestOf(guestProgram('zvold.cjs')),
  ]);
  const devices = planArgv({
    name: parseName('warm'),
    architecture,
    accelerator,
    cpus: spec.cpus,
    memory: bytes(spec.memory),
    boot: {
      kind: 'kernel',
      kernel: '',
      initrd: '',
      commandLine: kernelCommandLine(architecture, accelerator),
    },
    sshPort: 0,
    commandPort: 0,
    mac: '',
    ...nowhere,
  });
  const parts = {
    format: warmFormat,
    image: digest,
    agent,
    ...(spec.pool ? { zvold } : {}),
    devices,
    disk: spec.disk,
    pool: spec.pool ?? null,
    ...(spec.kernel ? { kernel: spec.kernel.digest } : {}),
    qemu: await fingerprint(binary),
    accelerator,
    cpu: hostCpu(),
  };
  const key = createHash('sha256').update(JSON.stringify(parts)).digest('hex');
  return { key, accelerator, imageDigest: digest, qemu: version.text };
}
