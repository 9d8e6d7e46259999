import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import type { DiskFormat } from '../qemu/img.ts';
import { sameImages } from '../qemu/img-convert.ts';
import type { DiskDevice } from '../template/storage.ts';
import { addDisk, type AddDisk, type AddedDisk } from './disk-add.ts';
import { lookAtSource, writeCopy, type SourceImage } from './disk-copy.ts';

/**
 * Makes a disk of a machine from a file of the host, by copy: the file stays as it is and is not needed any more. Compared as a
 * guest would read both before it is a disk.
 * @param from what the file is; by its content without
 * @throws Failure as `addDisk`, and `wrong-state` for a file that stands on another one, or is being written to
 */
export async function importDisk(
  ctx: Context,
  name: InstanceName,
  disk: DiskDevice,
  file: string,
  wanted: Omit<AddDisk, 'content'> & { readonly from?: DiskFormat },
): Promise<AddedDisk> {
  const source = lookAtSource(resolve(file), wanted.from);
  refuseDependent(source);
  const size = bytes(source.qcow2?.virtual ?? roundUp(statSync(source.path).size));
  const { clusterSize, compression } = disk.format ?? {};
  return addDisk(
    ctx,
    name,
    { ...disk, size },
    {
      ...wanted,
      content: {
        fill: (path) =>
          writeCopy(
            ctx,
            source,
            { path, format: disk.type, clusterSize, compression },
            `Copying ${source.path} to the disk "${disk.name}"`,
          ),
        isIn: (path) => sameImages(ctx, source, { path, format: disk.type }),
      },
    },
  );
}

/** A file that stands on another one takes its content from there, unseen. */
function refuseDependent({ path, qcow2 }: SourceImage): void {
  if (qcow2?.backing === undefined) return;
  const whole = path.replace(/(\.[^./]*)?$/, '-whole.qcow2');
  throw new Failure('wrong-state', `${path} stands on ${qcow2.backing}, and is no disk without it`, {
    hint: `one that needs no other file: ${printable(['zfsdev', 'disk', 'convert', path, whole])}\nthen import that`,
    data: { path, backing: qcow2.backing },
  });
}

/** A disk has whole sectors. */
function roundUp(size: number): number {
  return Math.ceil(size / 512) * 512;
}
