import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { Instance } from './instance.ts';
import { lookAtLima } from './lima-look.ts';

/** The disk that holds a machine's root file system. @throws Failure `files` if Lima has none of it */
export async function mainDisk(ctx: Context, instance: Pick<Instance, 'name' | 'state'>): Promise<string> {
  if (instance.state.driver === 'qemu') return ctx.paths.instance(instance.name).disk;
  const { disks, folder } = await lookAtLima(ctx, instance);
  const [disk] = disks;
  if (disk === undefined) throw new Failure('files', `there is no disk of "${instance.name}" in ${folder}`);
  return disk;
}
