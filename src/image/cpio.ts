import { readFile } from 'node:fs/promises';
import { Failure, messageOf } from '../core/errors.ts';
import { writeFileAtomically } from '../host/files.ts';

/** One member of a cpio archive; `path` is relative, and its parents come before it. */
export type CpioEntry =
  | { readonly type: 'folder'; readonly path: string; readonly mode?: number }
  | {
      readonly type: 'file';
      readonly path: string;
      readonly mode?: number;
      readonly content: string | Uint8Array;
    }
  | { readonly type: 'link'; readonly path: string; readonly target: string }
  | {
      readonly type: 'device';
      readonly path: string;
      readonly mode?: number;
      readonly major: number;
      readonly minor: number;
    };

const typeBits = { folder: 0o040000, file: 0o100000, link: 0o120000, device: 0o020000 } as const;
const defaultMode = { folder: 0o755, file: 0o644, link: 0o777, device: 0o600 } as const;

/** The kernel wants each archive of a concatenation to start at a multiple of 4; cpio's own block is 512. */
const blockSize = 512;

/**
 * Writes a cpio archive in the 'newc' format, the one the Linux kernel unpacks as initramfs
 * (Documentation/driver-api/early-userspace/buffer-format.rst in its source). Everything belongs to root and is of
 * 1970, so that equal entries give equal bytes. The length is a multiple of 512: archives can be joined as they are.
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  entries.forEach((entry, index) => addMember(parts, entry, index + 1));
  addHeader(parts, 'TRAILER!!!', { inode: 0, mode: 0, links: 1, size: 0, major: 0, minor: 0 });
  const archive = Buffer.concat(parts);
  const rest = archive.length % blockSize;
  return rest === 0 ? archive : Buffer.concat([archive, Buffer.alloc(blockSize - rest)]);
}

function addMember(parts: Uint8Array[], entry: CpioEntry, inode: number): void {
  if (entry.path.startsWith('/') || entry.path.split('/').includes('..')) {
    throw new RangeError(`not a path inside an archive: ${entry.path}`);
  }
  const content = contentOf(entry);
  const mode = 'mode' in entry && entry.mode !== undefined ? entry.mode : defaultMode[entry.type];
  addHeader(parts, entry.path, {
    inode,
    mode: typeBits[entry.type] | mode,
    links: entry.type === 'folder' ? 2 : 1,
    size: content.length,
    major: entry.type === 'device' ? entry.major : 0,
    minor: entry.type === 'device' ? entry.minor : 0,
  });
  parts.push(content, padding(content.length));
}

function contentOf(entry: CpioEntry): Buffer {
  switch (entry.type) {
    case 'file':
      return Buffer.from(entry.content);
    case 'link':
      return Buffer.from(entry.target);
    case 'folder':
    case 'device':
      return Buffer.alloc(0);
  }
}

interface Header {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly size: number;
  readonly major: number;
  readonly minor: number;
}

function addHeader(parts: Uint8Array[], path: string, header: Header): void {
  const name = Buffer.from(`${path}\0`);
  const { inode, mode, links, size, major, minor } = header;
  // Order: inode, mode, uid, gid, links, mtime, size, device (major, minor), rdev (major, minor), name size, checksum.
  const fields = [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name.length, 0];
  const text = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  parts.push(Buffer.from(text), name, padding(text.length + name.length));
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}

/** The folder of the initrd in which /init looks for a machine's own files. */
export const seedFolder = 'zfsdev-seed';

/** A machine's own files (`hostname`, `pool.conf` ...) as the archive that is appended to the image's initrd. */
export function seedArchive(files: ReadonlyMap<string, string | Uint8Array>): Buffer {
  return cpioArchive([
    { type: 'folder', path: seedFolder, mode: 0o700 },
    ...[...files].map(([name, content]): CpioEntry => ({
      type: 'file',
      path: `${seedFolder}/${name}`,
      mode: 0o600,
      content,
    })),
  ]);
}

/**
 * Writes the initrd of one machine: the image's initrd followed by the machine's seed, mode 0600 (it holds a private
 * host key). Two archives in one file are one initramfs to the kernel.
 * @throws Failure `files` if the one can't be read or the other not be written.
 */
export async function appendSeed(
  imageInitrd: string,
  target: string,
  files: ReadonlyMap<string, string | Uint8Array>,
): Promise<void> {
  let base: Buffer;
  try {
    base = await readFile(imageInitrd);
  } catch (error) {
    throw new Failure('files', `${imageInitrd} can't be read: ${messageOf(error)}`, {
      hint: 'zfsdev image list shows whether the image is whole',
      cause: error,
    });
  }
  await writeFileAtomically(target, Buffer.concat([base, seedArchive(files)]));
}
