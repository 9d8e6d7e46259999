import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../host/context.ts';
import { readIfExists } from '../host/files.ts';
import { limaInstance } from '../lima/folder.ts';
import type { Instance } from './instance.ts';
import { findMachine } from './machine-process.ts';
import type { State } from './state.ts';

/** What Lima has of a machine, by its files; limactl isn't asked, so that a look costs nothing. */
export interface LimaLook {
  /** Lima's folder of it. */
  readonly folder: string;
  /** The disks that make it up, each once. */
  readonly disks: readonly string[];
  /** Of its host agent, without which Lima doesn't count it as running. */
  readonly pid?: number;
  /** It isn't there, or what is there is another machine, and not to be touched. */
  readonly lost?: 'absent' | 'foreign';
  /** Why it can't be used, if so. */
  readonly problem?: string;
}

/** The line of a machine's lima.yaml that tells it from any other one of its name. */
export function limaMarker({ machineId }: Pick<State, 'machineId'>): string {
  return `zfsdev machine ${machineId}`;
}

/** Lima's folder of a machine. */
export function limaFolder(ctx: Context, { name, state }: Pick<Instance, 'name' | 'state'>): string {
  return join(state.limaHome ?? ctx.paths.lima, name);
}

/**
 * The most bytes that a disk of Lima's can take on the host: as a qcow2 its tables come on top of its virtual size, an
 * eighth of a thousandth and as much for counting references, of clusters of 64 KiB as of larger ones, and a little.
 */
export function limaDiskBound(virtual: number): number {
  return virtual + Math.ceil(virtual / 4096) + 2 ** 20;
}

/** Looks at a machine of the Lima driver. @throws Failure `files` where something can't be read */
export async function lookAtLima(
  ctx: Context,
  instance: Pick<Instance, 'name' | 'state'>,
): Promise<LimaLook> {
  const folder = await realpath(limaFolder(ctx, instance)).catch(() => limaFolder(ctx, instance));
  const found = await limaInstance(instance.name, folder);
  if (!found) return { folder, disks: [], lost: 'absent', problem: 'Lima no longer has it' };
  const { disks } = found;
  const text = readIfExists(join(folder, 'lima.yaml')) ?? '';
  if (instance.state.adopted === undefined && !text.includes(limaMarker(instance.state)))
    return {
      folder,
      disks,
      lost: 'foreign',
      problem: `Lima's "${instance.name}" is another machine than the one zfsdev made`,
    };
  const [agent, machine] = await Promise.all([
    findMachine(ctx, join(folder, 'ha.pid')),
    findMachine(ctx, join(folder, 'qemu.pid')),
  ]);
  if (agent === undefined && machine !== undefined)
    return {
      folder,
      disks,
      pid: machine,
      problem: `Lima's host agent ended, and left its machine running; zfsdev stop --force ${instance.name} ends it`,
    };
  const problem = found.problem === undefined ? {} : { problem: found.problem };
  return { folder, disks, ...(agent === undefined ? {} : { pid: agent }), ...problem };
}
