import { accessSync, constants, lstatSync, statSync, type Stats } from 'node:fs';
import { bytes, exactBytes, type Bytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { leadsTo } from '../host/system-folders.ts';
import type { Qcow2 } from '../qemu/qcow2-header.ts';
import { readDisk } from '../qemu/qcow2.ts';
import type { DiskDevice } from '../template/storage.ts';
import type { StorageFile } from './machine-files.ts';
import { backingChain } from './storage-users.ts';

/** @throws Failure `not-found`, `files` for a backing file that can't be stood on */
export function requireBacking({ name, backingFile, backingFormat }: DiskDevice): void {
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

/** What is known of a disk's file; undefined if nothing is there. @throws Failure `files` for a link that leads nowhere */
export function lookAtFile({ disk, path }: StorageFile): Stats | undefined {
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

/** What is known of a file; undefined if it isn't there. @throws Failure `files` if it can't be looked at */
export function statOf(path: string, what: string): Stats | undefined {
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
export function checkPresent({ disk, path }: StorageFile, found: Stats): string[] {
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
