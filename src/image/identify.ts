import { basename } from 'node:path';
import { Failure } from '../core/errors.ts';
import { printable } from '../host/run.ts';

/** What files begin with that are often taken for a disk image, and aren't one. */
const packed: readonly { readonly name: string; readonly magic: Buffer; readonly unpack: string }[] = [
  { name: 'gzip', magic: Buffer.from([0x1f, 0x8b]), unpack: 'gunzip' },
  { name: 'xz', magic: Buffer.from('fd377a585a00', 'hex'), unpack: 'unxz' },
  { name: 'bzip2', magic: Buffer.from('BZh'), unpack: 'bunzip2' },
  { name: 'zstd', magic: Buffer.from('28b52ffd', 'hex'), unpack: 'unzstd' },
  { name: 'zip', magic: Buffer.from('PK\x03\x04', 'latin1'), unpack: 'unzip' },
];

const others: readonly { readonly what: string; readonly pattern: RegExp }[] = [
  { what: 'a web page', pattern: /^\s*<(!doctype|html|\?xml)/i },
  { what: 'a disk of VMware', pattern: /^(KDMV|COWD|# Disk DescriptorFile)/ },
  { what: 'a disk of Hyper-V', pattern: /^(vhdxfile|conectix)/ },
  { what: 'a disk of VirtualBox', pattern: /^<<< .*VirtualBox/ },
];

/**
 * Refuses by its first bytes what is neither a qcow2 nor a raw disk, with the command that makes one of it.
 * @throws Failure `image`
 */
export function refuseOther(start: Buffer, location: string): void {
  const archive = packed.find(({ magic }) => start.subarray(0, magic.length).equals(magic));
  if (archive) {
    throw new Failure(
      'image',
      `${location} is compressed with ${archive.name}, and has to be unpacked first`,
      {
        hint: howToUnpack(location, archive.unpack),
      },
    );
  }
  const text = start.subarray(0, 256).toString('latin1');
  const other = others.find(({ pattern }) => pattern.test(text));
  if (!other) return;
  throw new Failure('image', `${location} is ${other.what}, not a disk image`, {
    hint: other.what.startsWith('a disk')
      ? `make one of it: qemu-img convert -O qcow2 ${printable([basename(location)])} disk.qcow2`
      : 'look at the address in a browser: the image itself usually ends in .qcow2 or .img',
  });
}

/** The digest that publishers tell is that of the packed file, so that the unpacked one goes without. */
function howToUnpack(location: string, unpack: string): string {
  const isUrl = /^https?:/i.test(location);
  const file = isUrl ? basename(new URL(location).pathname) : location;
  const unpacked = file.replace(/\.(gz|xz|bz2|zst|zip)$/i, '');
  const fetch = isUrl ? `${printable(['curl', '-LO', location])} && ` : '';
  return `${fetch}${printable([unpack, file])} && ${printable(['zfsdev', 'image', 'pull', unpacked])}`;
}

/** Whether a file without any header of its own can be a disk that boots: it has a table of partitions. */
export function hasPartitionTable(start: Buffer): boolean {
  const isMbr = start.length >= 512 && start[510] === 0x55 && start[511] === 0xaa;
  const isGpt = [512, 4096].some((at) => start.subarray(at, at + 8).toString('latin1') === 'EFI PART');
  return isMbr || isGpt;
}
