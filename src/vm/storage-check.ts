import { accessSync, constants, lstatSync, statSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { bytes, exactBytes, formatBytes, type Bytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { systemFolderOf } from '../host/system-folders.ts';
import { hostArchitecture } from '../qemu/binary.ts';
import { readDisk, type Qcow2 } from '../qemu/qcow2.ts';
import type { Spec } from '../template/spec.ts';
import { disksAmong, sharesAmong, type DiskDevice } from '../template/storage.ts';
import type { StorageFile } from './machine-files.ts';
import { checkShare } from './shares.ts';
import { placeOf } from './storage-places.ts';
import { backingChain, clashOf, leadsTo, ownPlaceOf, usesOfOthers, usesOfStorage } from './storage-users.ts';

/** A disk of a machine's storage, and where it lies. */
export type PlacedDisk = StorageFile;

/** What is to be done about a machine's storage before it starts. */
export interface StoragePlan {
  /** Disks whose file isn't there. */
  readonly missing: readonly PlacedDisk[];
  /** What the user should know that is no failure. */
  readonly notices: readonly string[];
}

/** A machine's name and storage. */
export type Owner = Pick<Spec, 'name' | 'storage'>;

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
  const missing: PlacedDisk[] = [];
  const notices: string[] = [];
  for (const each of placed) {
    requireOwn(ctx, owner.name, each);
    requirePassphrase(each.disk);
    requireBacking(each.disk);
    const found = look(each);
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
function requireAttachable(disks: readonly PlacedDisk[]): void {
  const ide = disks.find(({ disk }) => disk.interface === 'ide');
  if (!ide || hostArchitecture() === 'x86_64') return;
  throw new Failure('unsupported', `the disk "${ide.disk.name}": machines on arm64 have no ide`, {
    hint: 'interface: virtio, sata or scsi in the template',
  });
}

/** @throws Failure `already-exists` for a file that another machine, or another disk of this one, has */
async function requireUnused(ctx: Context, owner: Owner): Promise<void> {
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
function requireOwn(ctx: Context, instance: InstanceName, { disk, path }: PlacedDisk): void {
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

/** @throws Failure `not-found`, `files` for a backing file that can't be stood on */
function requireBacking({ name, backingFile, backingFormat }: DiskDevice): void {
  if (backingFile === undefined) return;
  const what = `the backing file of the disk "${name}"`;
  const found = statOf(backingFile, what);
  if (!found) {
    throw new Failure('not-found', `${what} is not there: ${backingFile}`, {
      hint: 'backing_file in the template names it',
    });
  }
  requireFile(found, `${what}, ${backingFile},`);
  if (backingFormat !== 'raw') requireQcow2(backingFile, what, 'backing_format: raw, if that is what it is');
}

function look({ disk, path }: PlacedDisk): Stats | undefined {
  const what = `the disk "${disk.name}"`;
  const found = statOf(path, what);
  if (found) return found;
  if (!isLink(path)) return undefined;
  throw new Failure('files', `${what}: ${path} is a symbolic link that leads nowhere`, {
    hint: `no disk is made through a link; remove it: rm ${path}`,
  });
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

function statOf(path: string, what: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if (hasCode(error, 'ENOTDIR')) {
      throw new Failure('files', `${what}: a folder on the way to ${path} is a file`, { cause: error });
    }
    throw new Failure('files', `${what}: ${path} can't be looked at: ${messageOf(error)}`, { cause: error });
  }
}

function requireFile(found: Stats, what: string): void {
  if (found.isFile()) return;
  const kind = found.isDirectory() ? 'a folder' : 'a device, a pipe or a socket';
  throw new Failure('files', `${what} is ${kind}, not a file`, { hint: 'disks are regular files' });
}

/** What a file that is there tells against the template; gives what is no failure. @throws Failure */
function checkPresent({ disk, path }: PlacedDisk, found: Stats): string[] {
  const what = `the disk "${disk.name}"`;
  requireFile(found, `${what}: ${path}`);
  try {
    accessSync(path, disk.readonly ? constants.R_OK : constants.R_OK | constants.W_OK);
  } catch (error) {
    const verb = disk.readonly ? 'read' : 'written to';
    throw new Failure('files', `${what}: ${path} can't be ${verb}: ${messageOf(error)}`, {
      hint: disk.readonly ? `chmod u+r ${path}` : `chmod u+rw ${path}, or readonly: true in the template`,
      cause: error,
    });
  }
  // Nobody looks into a raw disk: what begins like a qcow2 there is the guest's own doing.
  const virtual = disk.type === 'raw' ? found.size : presentQcow2(disk, path, what);
  return compareSizes(disk, path, bytes(virtual));
}

function presentQcow2(disk: DiskDevice, path: string, what: string): number {
  const qcow2 = requireQcow2(path, what, 'type: raw in the template, if that is what it is');
  const encrypted = qcow2.encrypted;
  if (encrypted !== (disk.format?.passphraseFile !== undefined)) {
    throw new Failure('files', `${what}: ${path} is ${encrypted ? '' : 'not '}encrypted`, {
      hint: encrypted
        ? 'format: { encryption: { passphrase_file: ... } } in the template tells its passphrase'
        : 'leave format.encryption out, or have another file made',
    });
  }
  requireSameBacking(disk, path, what, qcow2);
  return qcow2.virtual;
}

/** A qcow2 whose header names another file than the template, or one without its format, which QEMU would have to guess. */
function requireSameBacking(
  { backingFile }: DiskDevice,
  path: string,
  what: string,
  { backing, backingFormat }: { readonly backing?: string; readonly backingFormat?: string },
): void {
  const [first] = backingChain(path);
  const hint = 'backing_file and backing_format in the template tell what it stands on';
  if (backingFile !== undefined) {
    if (first !== undefined && leadsTo(first) === leadsTo(backingFile)) return;
    const stands = backing === undefined ? 'on nothing' : `on ${backing}`;
    throw new Failure('files', `${what}: ${path} stands ${stands}, not on ${backingFile}`, { hint });
  }
  if (backing === undefined || backingFormat !== undefined) return;
  throw new Failure(
    'files',
    `${what}: ${path} stands on ${backing}, and does not say of what format that is`,
    {
      hint,
    },
  );
}

function requireQcow2(path: string, what: string, hint: string): Qcow2 {
  let content: ReturnType<typeof readDisk>;
  try {
    content = readDisk(path);
  } catch (error) {
    throw new Failure('files', `${what}: ${messageOf(error)}`, {
      hint: `qemu-img check ${path} tells more`,
      cause: error,
    });
  }
  if (content.kind === 'qcow2') return content.qcow2;
  throw new Failure('files', `${what}: ${path} is no qcow2`, { hint });
}

/** Files are never resized in silence: a smaller one is refused, a larger one is told. */
function compareSizes(disk: DiskDevice, path: string, virtual: Bytes): string[] {
  if (disk.size === undefined || virtual === disk.size) return [];
  const [is, wanted] = [exactBytes(virtual), exactBytes(disk.size)];
  if (virtual > disk.size) {
    return [
      `the disk "${disk.name}" has ${is}, more than the ${wanted} of its template: ${path} stays as it is`,
    ];
  }
  throw new Failure(
    'files',
    `the disk "${disk.name}": ${path} has ${is}, less than the ${wanted} of its template`,
    {
      hint: `size: ${is} in the template takes it as it is; qemu-img resize -f ${disk.type} ${path} ${disk.size} makes it larger`,
      data: { path, sizeBytes: virtual, wantedBytes: disk.size },
    },
  );
}

/** @throws Failure for a file that isn't there and can't be made */
function requireMakeable(placed: PlacedDisk): PlacedDisk {
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
