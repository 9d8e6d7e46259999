import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { disksAmong, type DiskDevice } from '../template/storage.ts';
import type { Instance } from './instance.ts';
import { lookAtLima } from './lima-look.ts';
import { placeOf } from './storage-places.ts';

/** Where the files of a machine lie. */
export interface MachineFiles {
  readonly folder: string;
  /** Those that it writes to: the one with the root file system first; none where Lima has lost them. */
  readonly disks: readonly string[];
  /** Those of its storage, also what it only reads; empty for a damaged machine, and for one of Lima's. */
  readonly storage: readonly StorageFile[];
}

/** A disk of a machine's storage, and where it lies. */
export interface StorageFile {
  readonly disk: DiskDevice;
  readonly path: string;
}

/** What is known of a machine when its files are looked for. */
export type KnownMachine = Pick<Instance, 'name' | 'state'> & Partial<Pick<Instance, 'spec'>>;

/** The files of a machine, whichever driver made it; of a damaged one, where zfsdev itself would have put them. */
export async function machineFiles(
  ctx: Context,
  name: InstanceName,
  instance: KnownMachine | undefined,
): Promise<MachineFiles> {
  const { folder, disk, disks: further } = ctx.paths.instance(name);
  if (instance?.state.driver === 'lima') return { ...(await lookAtLima(ctx, instance)), storage: [] };
  if (instance?.spec === undefined)
    return { folder, disks: [disk, ...(await filesIn(further))], storage: [] };
  const storage = disksAmong(instance.spec.storage).map((each) => ({
    disk: each,
    path: placeOf(ctx, name, each),
  }));
  const written = storage.filter((each) => !each.disk.readonly).map(({ path }) => path);
  return { folder, disks: [disk, ...written], storage };
}

/** What lies in a folder; nothing, if it can't be read. */
async function filesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.sort().map((name) => join(folder, name));
}

/** The disk that holds a machine's root file system. @throws Failure `files` if Lima has none of it */
export async function mainDisk(ctx: Context, instance: KnownMachine): Promise<string> {
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
