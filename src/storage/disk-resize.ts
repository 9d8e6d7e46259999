import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { bytes, exactBytes, formatBytes, type Bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { exists } from '../host/files.ts';
import { diskNode } from '../qemu/argv.ts';
import { resizeImage } from '../qemu/img-convert.ts';
import { nodeSizes } from '../qemu/plug.ts';
import type { DiskDevice } from '../template/storage.ts';
import { isCloudImage } from '../template/spec.ts';
import { boundOf, withRoom } from '../vm/disk-admission.ts';
import type { Instance } from '../vm/instance.ts';
import { readTable, requireSound, rootDisk, withAdvice } from '../vm/snapshot-disks.ts';
import { nodeOf, placeOf } from '../vm/storage-places.ts';
import { writeSpec, writeState } from '../vm/store.ts';
import { noFile, requireDisk, withDisks, withMonitor, type DiskMachine } from './disk-machine.ts';
import { isPluggedIn } from './disk-plug.ts';
import { recordDisk } from './disk-record.ts';

/** What a resize came to. Bytes, as the guest sees the disk. */
export interface Resized {
  readonly disk: string;
  readonly before: number;
  readonly after: number;
  /** The machine runs and has the disk: it sees the new size now. */
  readonly live: boolean;
  readonly isRoot: boolean;
  /** What is left to do in the guest, in words and commands. */
  readonly steps: readonly string[];
}

/**
 * Grows a disk, the machine running or not; one that has the size already stays as it is. What can still be written is
 * admitted first. Cut off at any step, it is done again by the same command.
 * @throws Failure `usage` for a smaller size, `no-space`, `not-found`, `wrong-state` for one that is only read, `files`,
 *   `process`
 */
export function resizeDisk(
  ctx: Context,
  name: InstanceName,
  diskName: string,
  size: Bytes,
  overcommit: boolean,
): Promise<Resized> {
  return withDisks(ctx, name, async (machine) => {
    const target = await targetOf(ctx, machine, diskName);
    const before = await sizeOf(ctx, machine, target);
    if (size < before) throw shrinks(target, before, size);
    const { type } = target.device;
    const [old, bound] = await Promise.all([boundOf(ctx, type, bytes(before)), boundOf(ctx, type, size)]);
    const what = `the disk "${diskName}" of ${name}`;
    const claim = { what, path: dirname(target.path), bound: bound - old, allocated: 0 };
    await step(ctx.emit, 'resize', `Growing "${diskName}" of ${name} to ${formatBytes(size)}`, () =>
      withRoom(ctx, { what, claims: [claim] }, overcommit, () =>
        target.isRoot
          ? growRoot(ctx, machine, target, { before, size, bound })
          : growOther(ctx, machine, target, { before, size }),
      ),
    );
    const steps = guestSteps(machine.instance, target);
    return { disk: diskName, before, after: size, live: target.live, isRoot: target.isRoot, steps };
  });
}

/** The bound counts from before the disk can grow; without the disk's growth it only claims too much. */
async function growRoot(
  ctx: Context,
  machine: DiskMachine,
  target: Target,
  { before, size, bound }: { before: number; size: Bytes; bound: number },
): Promise<void> {
  const { name, instance } = machine;
  const { made } = instance.state;
  await writeState(ctx, name, {
    ...instance.state,
    diskBound: Math.max(instance.state.diskBound, bound),
    made: { ...made, disk: made?.disk ?? instance.spec.disk },
  });
  if (size > before) {
    await grow(ctx, machine, target, size).catch(async (error: unknown) => {
      await writeState(ctx, name, instance.state);
      throw error;
    });
  }
  if (instance.spec.disk !== size) await writeSpec(ctx, { ...instance.spec, disk: size });
}

/** The size is written down once the file has it: one that is less than what is written down would be refused at a start. */
async function growOther(
  ctx: Context,
  machine: DiskMachine,
  target: Target,
  { before, size }: { before: number; size: Bytes },
): Promise<void> {
  if (size > before) await grow(ctx, machine, target, size);
  await recordDisk(ctx, machine.instance, { ...target.device, size });
}

interface Target {
  readonly machine: string;
  readonly device: DiskDevice;
  readonly path: string;
  readonly node: string;
  /** QEMU has it open, and has to be asked. */
  readonly live: boolean;
  readonly isRoot: boolean;
}

async function targetOf(ctx: Context, machine: DiskMachine, name: string): Promise<Target> {
  if (name === rootDisk) return rootTarget(ctx, machine);
  const device = requireDisk(machine, name);
  const path = placeOf(ctx, machine.name, device);
  if (!exists(path)) throw noFile(machine.name, name, path);
  const live = machine.running && (await isPluggedIn(ctx, machine, device));
  await requireGrowable(machine, device, path);
  return { machine: machine.name, device, path, node: nodeOf(device), live, isRoot: false };
}

async function rootTarget(ctx: Context, { name, instance, running }: DiskMachine): Promise<Target> {
  const { disk: path } = ctx.paths.instance(name);
  await requireSound([{ name: rootDisk, path, node: diskNode }]);
  const device: DiskDevice = {
    type: 'qcow2',
    name: rootDisk,
    file: path,
    size: instance.spec.disk,
    interface: 'virtio',
    media: 'disk',
    readonly: false,
    discard: true,
  };
  return { machine: name, device, path, node: diskNode, live: running, isRoot: true };
}

/** @throws Failure `wrong-state` for what is only read, `files` for what can't be written to */
async function requireGrowable({ name }: DiskMachine, disk: DiskDevice, path: string): Promise<void> {
  if (disk.readonly || disk.media === 'cdrom') {
    throw new Failure('wrong-state', `"${disk.name}" of "${name}" is only read, and can't grow`, {
      hint: "its file is somebody else's to change; a disk of your own: zfsdev disk add --size",
    });
  }
  if (disk.type === 'qcow2') await requireSound([{ name: disk.name, path, node: nodeOf(disk) }]);
}

async function sizeOf(
  ctx: Context,
  { name }: DiskMachine,
  { device, path, node, live }: Target,
): Promise<number> {
  if (live) {
    const size = await withMonitor(ctx, name, async (qmp) => (await nodeSizes(qmp)).get(node));
    if (size !== undefined && size > 0) return size;
  }
  if (device.type === 'raw') return statSync(path).size;
  const table = await readTable(path);
  if (table) return table.virtual;
  throw new Failure('files', `${path} is no qcow2, as "${device.name}" of "${name}" should be`, {
    hint: `qemu-img info ${path}`,
  });
}

/** QEMU itself would cut the rest off without a word. */
function shrinks({ device, machine }: Target, before: number, after: Bytes): Failure {
  return new Failure(
    'usage',
    `"${device.name}" of "${machine}" has ${formatBytes(before)}, and ${exactBytes(after)} would cut off what lies behind`,
    {
      hint: `disks only grow; a smaller one: zfsdev disk add ${machine} NAME --size ${exactBytes(after)}, and copy in the guest`,
      data: { disk: device.name, beforeBytes: before, afterBytes: after },
    },
  );
}

async function grow(ctx: Context, machine: DiskMachine, target: Target, size: Bytes): Promise<void> {
  try {
    await (target.live ? growLive(ctx, machine, target, size) : growFile(ctx, target, size));
  } catch (error) {
    throw withAdvice(target.path, error);
  }
}

async function growFile(ctx: Context, { device, path }: Target, size: Bytes): Promise<void> {
  const passphraseFile = device.format?.passphraseFile;
  await resizeImage(ctx, { path, format: device.type, ...(passphraseFile ? { passphraseFile } : {}) }, size);
}

async function growLive(
  ctx: Context,
  { name }: DiskMachine,
  { device, node }: Target,
  size: Bytes,
): Promise<void> {
  await withMonitor(ctx, name, async (qmp) => {
    await qmp.execute('block_resize', { 'node-name': node, size });
    const now = (await nodeSizes(qmp)).get(node);
    // Rounded up to whole clusters by some formats, never down.
    if (now !== undefined && now >= size) return;
    throw new Failure(
      'process',
      `QEMU says that "${device.name}" has grown, and it has ${formatBytes(now ?? 0)}`,
    );
  });
}

/** What is left to do in the guest, by command; the root file system grows by itself at a boot. */
function guestSteps({ name, spec }: Instance, { device: { name: disk }, isRoot, live }: Target): string[] {
  if (!isRoot) {
    const device = `/dev/disk/by-id/virtio-${disk}`;
    return [
      'in the guest, what is on it does not grow by itself:',
      `a partition: growpart ${device} 1; ext4: resize2fs ${device}; a pool: zpool online -e POOL ${device}`,
    ];
  }
  if (!live) return ['its root file system grows at the next boot'];
  return [
    `its root file system grows at the next boot: zfsdev restart ${name}`,
    // On a cloud image's disk it lies in a partition.
    ...(isCloudImage(spec.image) ? [] : [`or now: zfsdev exec ${name} -- resize2fs /dev/vda`]),
  ];
}
