import { statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { actualSize, exists, flush } from '../host/files.ts';
import { printable } from '../host/run.ts';
import { measureCopy, sameImages } from '../qemu/img-convert.ts';
import type { DiskDevice } from '../template/storage.ts';
import { boundOf, withRoom } from '../vm/disk-admission.ts';
import { placeOf } from '../vm/storage-places.ts';
import { clashOf, usesOfOthers } from '../vm/storage-users.ts';
import { lookAtSource, writeCopy, type SourceImage } from './disk-copy.ts';
import { requireDisk, withDisks, type DiskMachine } from './disk-machine.ts';
import { isPluggedIn } from './disk-plug.ts';
import { recordDisk } from './disk-record.ts';
import { makeTarget } from './target-file.ts';

/** What a change of type came to. */
export interface ChangedDisk {
  readonly disk: DiskDevice;
  readonly path: string;
  /** False if it was of this type already. */
  readonly changed: boolean;
  /** Blocks on the host before and after, in bytes. */
  readonly before: number;
  readonly after: number;
}

/**
 * Writes a disk of a machine anew as raw or qcow2, while nothing uses it. The new file is compared with the old one as a guest
 * would read both, flushed and put beside it, written down, and only then the old one goes: cut off at any step, one of them is
 * the disk, whole, and the same command completes it.
 * @throws Failure `wrong-state` while it is plugged in, for snapshots that would be lost, and for one that others stand on;
 *   `unsupported` for a file of the user's own; `no-space`, `files`, `process`, `deadline`, `interrupted`
 */
export function changeDisk(
  ctx: Context,
  name: InstanceName,
  diskName: string,
  type: DiskDevice['type'],
  overcommit: boolean,
): Promise<ChangedDisk> {
  return withDisks(ctx, name, async (machine) => {
    const disk = requireDisk(machine, diskName);
    const path = placeOf(ctx, name, disk);
    await requireFree(ctx, machine, disk, path, type);
    if (disk.type === type) {
      await sweepOther(ctx, machine, disk, path);
      return { disk, path, changed: false, before: actualSize(path), after: actualSize(path) };
    }
    const source = lookAtSource(path, disk.type);
    refuseLoss(name, disk, source);
    const next = changed(disk, type);
    const target = placeOf(ctx, name, next);
    const before = actualSize(path);
    await makeOther(ctx, machine, source, { disk: next, path: target }, overcommit);
    await recordDisk(ctx, machine.instance, next);
    // Some file systems would forget the record in a power cut, and remember that the old file is gone.
    await flush(ctx.paths.instance(name).folder);
    await rm(path, { force: true });
    await flush(dirname(path));
    return { disk: next, path: target, changed: true, before, after: actualSize(target) };
  });
}

/** How a qcow2 is laid out means nothing to a raw file. */
function changed(disk: DiskDevice, type: DiskDevice['type']): DiskDevice {
  const { format, ...rest } = disk;
  return { ...rest, type, ...(type === 'raw' || format === undefined ? {} : { format }) };
}

async function requireFree(
  ctx: Context,
  machine: DiskMachine,
  disk: DiskDevice,
  path: string,
  type: DiskDevice['type'],
): Promise<void> {
  const { name, running } = machine;
  const command = printable(['zfsdev', 'disk', 'change', name, disk.name, '--type', type]);
  if (disk.file !== undefined) {
    const other = disk.file.replace(/(\.(qcow2|raw|img))?$/, `.${type}`);
    throw new Failure('unsupported', `${path} is a file of your own, which stays what it is`, {
      hint: `${printable(['zfsdev', 'disk', 'convert', path, other])} makes another one\nzfsdev disk remove ${name} ${disk.name} && ${printable(['zfsdev', 'disk', 'add', name, disk.name, '--type', type, '--file', other])}`,
    });
  }
  if (running && (await isPluggedIn(ctx, machine, disk))) {
    throw new Failure('wrong-state', `"${disk.name}" is plugged into "${name}", which runs`, {
      hint: `zfsdev stop ${name} && ${command}\nor: zfsdev disk detach ${name} ${disk.name} && ${command} && zfsdev disk attach ${name} ${disk.name}`,
      data: { name, running: true },
    });
  }
  const clash = clashOf({ path, writes: true }, await usesOfOthers(ctx, name));
  if (clash)
    throw new Failure('wrong-state', `${path} is needed by ${clash.what}`, { hint: 'remove that one first' });
}

/** @throws Failure `wrong-state` for what the new file would not have */
function refuseLoss(machine: string, disk: DiskDevice, { path, qcow2 }: SourceImage): void {
  if (qcow2?.backing !== undefined) {
    throw new Failure('wrong-state', `"${disk.name}" stands on ${qcow2.backing}`, {
      hint: `a file that needs no other: ${printable(['zfsdev', 'disk', 'convert', path, `${disk.name}-whole.qcow2`])}\nthen: zfsdev disk import ${machine} NAME ${disk.name}-whole.qcow2`,
    });
  }
  if (!qcow2 || qcow2.snapshots.length === 0) return;
  const names = qcow2.snapshots.map(({ name }) => JSON.stringify(name));
  throw new Failure('wrong-state', `"${disk.name}" has snapshots, which would be lost: ${names.join(', ')}`, {
    hint: `zfsdev snapshot delete ${machine} SNAPSHOT --disk ${disk.name}, or zfsdev snapshot export first`,
  });
}

/** Makes the new file, unless one that is the same was put there by somebody who was killed then. */
async function makeOther(
  ctx: Context,
  { name }: DiskMachine,
  source: SourceImage,
  { disk, path }: { readonly disk: DiskDevice; readonly path: string },
  overcommit: boolean,
): Promise<void> {
  if (exists(path)) {
    if (await sameImages(ctx, source, { path, format: disk.type })) return flushAll(path);
    throw new Failure('already-exists', `there is a file ${path}, and it is not a copy of ${source.path}`, {
      hint: `look what it is; if nobody needs it: rm ${path}`,
      data: { path },
    });
  }
  const size = bytes(source.qcow2?.virtual ?? statSync(source.path).size);
  const [copy, bound] = await Promise.all([
    measureCopy(ctx, source, disk.type),
    // What is written down from now on may grow to another bound than the old file's.
    boundOf(ctx, disk.type, size),
  ]);
  const what = `the disk "${disk.name}" of ${name} as ${disk.type}`;
  const claim = {
    what,
    path: dirname(path),
    bound: Math.max(copy, bound - actualSize(source.path)),
    allocated: 0,
  };
  await step(ctx.emit, 'budget', 'Checking the disk space of the worst case', () =>
    withRoom(ctx, { what, claims: [claim] }, overcommit, () => Promise.resolve()),
  );
  await makeTarget(ctx, { path, overwrite: false }, (file) =>
    writeCopy(ctx, source, { path: file, format: disk.type }, `Writing "${disk.name}" as ${disk.type}`),
  );
}

/** A file that somebody else has put there may not be on the host's disk yet, and the old one goes. */
async function flushAll(path: string): Promise<void> {
  await flush(path);
  await flush(dirname(path));
}

/** The old file that somebody left who was killed before it went; one that is not the same stays. */
async function sweepOther(
  ctx: Context,
  { name }: DiskMachine,
  disk: DiskDevice,
  path: string,
): Promise<void> {
  const other = placeOf(ctx, name, changed(disk, disk.type === 'raw' ? 'qcow2' : 'raw'));
  if (!exists(other)) return;
  const same = await sameImages(ctx, { path, format: disk.type }, lookAtSource(other)).catch(() => false);
  if (same) return rm(other, { force: true });
  const text = `${other} is what "${disk.name}" was before; the disk has changed since, so it is left to you: rm ${other}`;
  ctx.emit({ type: 'notice', level: 'warning', text });
}
