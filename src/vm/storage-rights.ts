import { Failure, messageOf } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { leadsTo, systemFolderOf } from '../host/system-folders.ts';
import type { Spec } from '../template/spec.ts';
import type { StorageFile } from './machine-files.ts';
import { clashOf, ownPlaceOf, usesOfOthers, usesOfStorage } from './storage-users.ts';

/** A machine's name and storage. */
export type Owner = Pick<Spec, 'name' | 'storage'>;

/** @throws Failure `already-exists` for a file that another machine, or another disk of this one, has */
export async function requireUnused(ctx: Context, owner: Owner): Promise<void> {
  const root = {
    what: `the disk of "${owner.name}"`,
    path: ctx.paths.instance(owner.name).disk,
    writes: true,
  };
  const others = [root, ...(await usesOfOthers(ctx, owner.name))];
  const own = usesOfStorage(ctx, owner);
  for (const [index, use] of own.entries()) {
    const clash = clashOf(use, [...others, ...own.slice(0, index)]);
    if (!clash) continue;
    throw new Failure('already-exists', `${use.path} can't be ${use.what}: it is in use as ${clash.what}`, {
      hint: `give it a file of its own, or leave "file" out: then zfsdev makes one that goes with the machine`,
      data: { path: use.path, usedAs: clash.what },
    });
  }
}

/** @throws Failure `files` for what is zfsdev's own, and for what the system needs, as the guest would write to it */
export function requireOwn(ctx: Context, instance: InstanceName, { disk, path }: StorageFile): void {
  for (const file of [path, ...(disk.backingFile === undefined ? [] : [disk.backingFile])]) {
    const own = ownPlaceOf(ctx, instance, file);
    if (own === undefined) continue;
    throw new Failure('files', `the disk "${disk.name}": ${file} lies where zfsdev keeps ${own}`, {
      hint: 'take a copy of it that lies elsewhere',
    });
  }
  if (disk.readonly || disk.file === undefined) return;
  let folder: string | undefined;
  try {
    folder = systemFolderOf(path, ctx.env['HOME']);
  } catch (error) {
    throw new Failure('files', `the disk "${disk.name}": ${path} can't be looked at: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (folder === undefined) return;
  const leads = leadsTo(path) === path ? '' : ` (it leads to ${leadsTo(path)})`;
  throw new Failure(
    'files',
    `the disk "${disk.name}": ${path}${leads} lies in ${folder}, which is the system's`,
    {
      hint: 'take a folder of your own, for instance /var/tmp/vms or ~/vms; or leave "file" out',
      data: { path, folder },
    },
  );
}
