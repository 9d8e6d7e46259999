import { statSync } from 'node:fs';
import { messageOf, Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { diskNode } from '../qemu/argv.ts';
import { deviceIds, nodeSizes } from '../qemu/plug.ts';
import { disksAmong, type DiskDevice } from '../template/storage.ts';
import { mainDisk } from '../vm/machine-files.ts';
import { rootDisk } from '../vm/snapshot-disks.ts';
import { deviceOf, nodeOf, placeOf } from '../vm/storage-places.ts';
import { requireInstance } from '../vm/store.ts';
import { lookAtDisk, type DiskUsage } from './disk.ts';
import { openMachine, refuseLima, withMonitor, type DiskMachine } from './disk-machine.ts';

/** One disk of a machine. All sizes in bytes. */
export interface ListedDisk {
  readonly name: string;
  readonly type: 'qcow2' | 'raw';
  readonly interface: DiskDevice['interface'];
  readonly media: DiskDevice['media'];
  readonly path: string;
  readonly readonly: boolean;
  /** Of a running machine, what QEMU says; absent for a stopped one, or where QEMU could not be asked. */
  readonly plugged?: boolean;
  /** It is there when the machine starts. */
  readonly attached: boolean;
  /** What the guest sees; absent where the file does not tell. */
  readonly virtual?: number;
  /** Blocks on the host. */
  readonly actual: number;
  readonly snapshots: number;
  readonly backing?: string;
  /** What is wrong with its file. */
  readonly problem?: string;
}

export interface DiskList {
  readonly running: boolean;
  readonly disks: readonly ListedDisk[];
}

/** Looks at all disks of a machine, the one with the root file system first; what is wrong with a file is told, not thrown. */
export async function listDisks(ctx: Context, name: InstanceName): Promise<DiskList> {
  const found = await requireInstance(ctx, name);
  refuseLima(found);
  // A machine that is broken because a disk is gone is when one wants to know of its disks.
  const machine =
    found.status === 'broken' && found.instance
      ? { name, instance: found.instance, running: found.pid !== undefined }
      : openMachine(found);
  const seen = machine.running ? await seenByQemu(ctx, machine) : undefined;
  const root: DiskDevice = {
    type: 'qcow2',
    name: rootDisk,
    file: await mainDisk(ctx, machine.instance),
    interface: 'virtio',
    media: 'disk',
    readonly: false,
    discard: true,
  };
  const disks = [root, ...disksAmong(machine.instance.spec.storage)];
  return {
    running: machine.running,
    disks: await Promise.all(disks.map((disk) => look(ctx, name, disk, seen))),
  };
}

/** What QEMU has: ids of devices, and nodes with their sizes. */
interface Seen {
  readonly devices: ReadonlySet<string>;
  readonly nodes: ReadonlyMap<string, number>;
}

async function seenByQemu(ctx: Context, { name }: DiskMachine): Promise<Seen | undefined> {
  try {
    return await withMonitor(ctx, name, async (qmp) => ({
      devices: await deviceIds(qmp),
      nodes: await nodeSizes(qmp),
    }));
  } catch (error) {
    if (!(error instanceof Failure) || error.reason === 'interrupted') throw error;
    const text = `QEMU can't be asked which disks are plugged in: ${messageOf(error)}`;
    ctx.emit({ type: 'notice', level: 'warning', text });
    return undefined;
  }
}

async function look(
  ctx: Context,
  machine: InstanceName,
  disk: DiskDevice,
  seen: Seen | undefined,
): Promise<ListedDisk> {
  const path = placeOf(ctx, machine, disk);
  const usage = await lookAtDisk(path);
  const isRoot = disk.name === rootDisk;
  const node = isRoot ? diskNode : nodeOf(disk);
  const plugged =
    seen && (isRoot || (disk.interface === 'none' ? seen.nodes.has(node) : seen.devices.has(deviceOf(disk))));
  // The size that the guest sees may not be in the file's own tables yet.
  const virtual = seen?.nodes.get(node) ?? virtualOf(disk, path, usage);
  return {
    name: disk.name,
    type: disk.type,
    interface: disk.interface,
    media: disk.media,
    path,
    readonly: disk.readonly,
    ...(plugged === undefined ? {} : { plugged }),
    attached: disk.detached !== true,
    ...(virtual === undefined ? {} : { virtual }),
    actual: usage.actual,
    snapshots: usage.snapshots,
    ...(usage.backing === undefined ? {} : { backing: usage.backing }),
    ...problemOf(disk, usage),
  };
}

/** What a raw disk holds is its guest's own: it may look like a qcow2, and still has the size of its file. */
function virtualOf(disk: DiskDevice, path: string, usage: DiskUsage): number | undefined {
  if (usage.kind === undefined) return undefined;
  return disk.type === 'raw' ? statSync(path, { throwIfNoEntry: false })?.size : usage.virtual;
}

function problemOf(disk: DiskDevice, { kind, problem }: DiskUsage): { readonly problem?: string } {
  if (disk.type === 'raw' && kind === 'qcow2') return {};
  if (disk.type === 'qcow2' && kind === 'raw' && problem === undefined) return { problem: 'it is no qcow2' };
  return problem === undefined ? {} : { problem };
}
