import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { nearest, type InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { makePrivateFolder, writeFileAtomically } from '../host/files.ts';
import { limaHome, limaInstances } from '../lima/folder.ts';
import { listLima } from '../lima/limactl.ts';
import { formatSpec, type Spec } from '../template/spec.ts';
import type { Instance } from './instance.ts';
import { limaDiskBound } from './lima-look.ts';
import { withInstanceLock } from './lifecycle.ts';
import { newState, type State } from './state.ts';
import { inspect, writeState } from './store.ts';

/**
 * Takes a Lima instance that somebody else made under zfsdev's wing, so that it can be looked after like one of its own.
 * Nothing of it is changed, now or when it is let go again.
 * @throws Failure `not-found`, `already-exists`, `dependency`, `process`
 */
export async function adopt(ctx: Context, name: InstanceName): Promise<Instance> {
  const home = limaHome(ctx.env);
  const names = (await limaInstances(home)).map((instance) => instance.name);
  if (!names.includes(name)) {
    const near = nearest(name, names);
    throw new Failure('not-found', `Lima has no instance "${name}" in ${home}`, {
      hint: near ? `did you mean "${near}"?` : 'limactl list shows all; LIMA_HOME tells where they are',
    });
  }
  return withInstanceLock(ctx, name, async () => {
    if (await inspect(ctx, name, { lockIsOurs: true })) {
      throw new Failure('already-exists', `there is an instance "${name}" already`, {
        hint: `zfsdev inspect ${name} tells what it is`,
      });
    }
    const found = await listLima(ctx, home, name);
    const spec: Spec = {
      template: join(found.dir, 'lima.yaml'),
      name,
      description: 'A Lima instance that zfsdev did not make',
      driver: 'lima',
      accelerator: 'auto',
      cpus: found.cpus,
      memory: bytes(found.memory),
      disk: bytes(found.disk),
      image: { flavour: 'base', suite: 'trixie' },
      worstCase: [],
    };
    const state: State = {
      ...newState('lima'),
      phase: 'started',
      limaHome: await realpath(home),
      adopted: true,
      diskBound: limaDiskBound(found.disk),
    };
    const paths = ctx.paths.instance(name);
    await makePrivateFolder(paths.folder);
    await writeState(ctx, name, state);
    await writeFileAtomically(paths.spec, formatSpec(spec));
    return { name, spec, state };
  });
}
