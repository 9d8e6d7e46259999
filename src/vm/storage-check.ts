import { accessSync, constants, statSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { hostArchitecture } from '../qemu/binary.ts';
import { disksAmong, sharesAmong, type DiskDevice } from '../template/storage.ts';
import type { StorageFile } from './machine-files.ts';
import { checkShare } from './shares.ts';
import { placeOf } from './storage-places.ts';
import { checkPresent, lookAtFile, requireBacking, statOf } from './storage-present.ts';
import { requireOwn, requireUnused, type Owner } from './storage-rights.ts';

/** What is to be done about a machine's storage before it starts. */
export interface StoragePlan {
  /** Disks whose file isn't there. */
  readonly missing: readonly StorageFile[];
  /** What the user should know that is no failure. */
  readonly notices: readonly string[];
}

/**
 * Looks whether a machine can have its storage, and changes nothing: every file that is there is what its template says
 * and nobody else's, every other one may be made, every share is a folder that can be shared.
 * @throws Failure `files`, `not-found`, `already-exists` for a file of another machine, `unsupported`, `dependency`
 */
export async function checkStorage(ctx: Context, owner: Owner): Promise<StoragePlan> {
  if (owner.storage === undefined || owner.storage.length === 0) return { missing: [], notices: [] };
  const placed = disksAmong(owner.storage).map((disk) => ({ disk, path: placeOf(ctx, owner.name, disk) }));
  requireAttachable(placed);
  await requireUnused(ctx, owner);
  const missing: StorageFile[] = [];
  const notices: string[] = [];
  for (const each of placed) {
    requireOwn(ctx, owner.name, each);
    requirePassphrase(each.disk);
    requireBacking(each.disk);
    const found = lookAtFile(each);
    if (found) notices.push(...checkPresent(each, found));
    else missing.push(requireMakeable(each));
  }
  for (const share of sharesAmong(owner.storage)) await checkShare(ctx, owner.name, share);
  return { missing, notices };
}

/** What `layOutStorage` would do, line by line, for --dry-run. @throws Failure as `checkStorage` */
export async function plannedStorage(ctx: Context, owner: Owner): Promise<string[]> {
  const { missing, notices } = await checkStorage(ctx, owner);
  return [
    ...missing.map(({ disk, path }) => {
      const size =
        disk.size === undefined ? 'of the size of its backing file' : `${formatBytes(disk.size)} virtual`;
      return `create ${path}, the ${disk.type} disk "${disk.name}", ${size}`;
    }),
    ...notices,
  ];
}

/** What this host's board can't have. @throws Failure `unsupported` */
function requireAttachable(disks: readonly StorageFile[]): void {
  const ide = disks.find(({ disk }) => disk.interface === 'ide');
  if (!ide || hostArchitecture() === 'x86_64') return;
  throw new Failure('unsupported', `the disk "${ide.disk.name}": machines on arm64 have no ide`, {
    hint: 'interface: virtio, sata or scsi in the template',
  });
}

/** @throws Failure `files` for a passphrase that others can read, or that isn't there */
function requirePassphrase({ name, format }: DiskDevice): void {
  const file = format?.passphraseFile;
  if (file === undefined) return;
  const refuse = (why: string, hint: string, cause?: unknown): Failure =>
    new Failure('files', `the disk "${name}": the passphrase file ${file} ${why}`, { hint, cause });
  let found: Stats;
  try {
    found = statSync(file);
    accessSync(file, constants.R_OK);
  } catch (error) {
    const hint = 'put the passphrase there, without a newline at its end, and chmod 600 it';
    throw refuse(`can't be read: ${messageOf(error)}`, hint, error);
  }
  if (!found.isFile()) throw refuse('is not a file', 'put the passphrase into a file');
  if (found.size === 0) throw refuse('is empty', 'put the passphrase there');
  if ((found.mode & 0o077) !== 0) throw refuse('can be read by others', `chmod 600 ${file}`);
}

/** @throws Failure for a file that isn't there and can't be made */
function requireMakeable(placed: StorageFile): StorageFile {
  const { disk, path } = placed;
  const what = `the disk "${disk.name}"`;
  if (disk.readonly) {
    throw new Failure('not-found', `${what} is only read, and its file is not there: ${path}`, {
      hint:
        disk.media === 'cdrom' ? 'put the medium there' : 'put it there, or have it made: without readonly',
    });
  }
  if (disk.size === undefined && disk.backingFile === undefined) {
    throw new Failure('not-found', `${what} is not there: ${path}`, {
      hint: 'put it there, or give its size in the template: then it is made',
    });
  }
  if (disk.file !== undefined) requireWritable(dirname(path), what);
  return placed;
}

/** The nearest folder that is there must take new files. @throws Failure `files` */
function requireWritable(folder: string, what: string): void {
  const found = statOf(folder, what);
  if (!found) return requireWritable(dirname(folder), what);
  if (!found.isDirectory()) throw new Failure('files', `${what}: ${folder} is a file, not a folder`);
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new Failure('files', `${what} can't be made: ${folder} can't be written to: ${messageOf(error)}`, {
      hint: `chmod u+wx ${folder}, or take another folder`,
      cause: error,
    });
  }
}
