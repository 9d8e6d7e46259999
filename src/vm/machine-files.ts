import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import type { Instance } from './instance.ts';
import { lookAtLima } from './lima-look.ts';

/** Where the files of a machine lie. */
export interface MachineFiles {
  readonly folder: string;
  /** The one with the root file system first; none where Lima has lost them. */
  readonly disks: readonly string[];
}

/** The files of a machine, whichever driver made it; of a damaged one, where zfsdev itself would have put them. */
export async function machineFiles(
  ctx: Context,
  name: InstanceName,
  instance: Pick<Instance, 'name' | 'state'> | undefined,
): Promise<MachineFiles> {
  const { folder, disk } = ctx.paths.instance(name);
  return instance?.state.driver === 'lima' ? lookAtLima(ctx, instance) : { folder, disks: [disk] };
}

/** The disk that holds a machine's root file system. @throws Failure `files` if Lima has none of it */
export async function mainDisk(ctx: Context, instance: Pick<Instance, 'name' | 'state'>): Promise<string> {
  const { disks, folder } = await machineFiles(ctx, instance.name, instance);
  const [disk] = disks;
  if (disk === undefined) throw new Failure('files', `there is no disk of "${instance.name}" in ${folder}`);
  return disk;
}

/** What a machine wrote to its console. */
export async function consoleLog(
  ctx: Context,
  machine: Pick<Instance, 'name'> & Partial<Pick<Instance, 'state'>>,
): Promise<string> {
  const { console } = ctx.paths.instance(machine.name);
  const { name, state } = machine;
  return state?.driver === 'lima'
    ? join((await lookAtLima(ctx, { name, state })).folder, 'serial.log')
    : console;
}
