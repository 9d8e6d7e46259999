import { Failure } from '../core/errors.ts';
import type { Bytes } from '../core/bytes.ts';
import type { Context } from '../host/context.ts';
import { img } from './img.ts';
import { optionString } from './option-string.ts';

/** A qcow2 that is to be made. */
export interface NewQcow2 {
  /** An empty file, whose mode stays. */
  readonly path: string;
  /** Virtual size; that of the backing file without. */
  readonly size?: Bytes | undefined;
  /** Bytes; 64 KiB with extended L2 entries without, so that a small write takes no more than it is. */
  readonly clusterSize?: Bytes | undefined;
  readonly compression?: 'zlib' | 'zstd' | undefined;
  /** Encrypted by LUKS, with what this file holds. */
  readonly passphraseFile?: string | undefined;
  readonly backing?: { readonly path: string; readonly format: 'qcow2' | 'raw' } | undefined;
}

/** Names a passphrase to qemu-img by its file, so that no list of processes shows it. */
export function secretArguments(passphraseFile: string | undefined): string[] {
  if (passphraseFile === undefined) return [];
  return ['--object', optionString('secret', { id: 'passphrase', file: passphraseFile })];
}

/** How a new qcow2 is laid out, as qemu-img's option `-o` has it. */
export function layoutOptions({
  clusterSize,
  compression,
  passphraseFile,
}: Pick<NewQcow2, 'clusterSize' | 'compression' | 'passphraseFile'>): string {
  return [
    clusterSize === undefined ? 'cluster_size=64k,extended_l2=on' : `cluster_size=${clusterSize}`,
    ...(compression === undefined ? [] : [`compression_type=${compression}`]),
    ...(passphraseFile === undefined ? [] : ['encrypt.format=luks', 'encrypt.key-secret=passphrase']),
  ].join(',');
}

/**
 * LUKS tries out how often a passphrase can be hashed in a second; where the kernel counts processor time in ticks, QEMU now and
 * then finds that it took none, and gives up: 3 of 13 times on a busy host.
 */
const coarseClock = /Unable to get accurate CPU usage/;
const attempts = 20;

/**
 * Makes a qcow2 in a file that is there and empty. Should zfsdev be killed, qemu-img goes with it.
 * @throws Failure `no-space`, `process` with qemu-img's words, `interrupted`
 */
export async function createQcow2(ctx: Context, disk: NewQcow2): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await img(ctx, 'write', createArguments(disk), { orphanSignal: 'KILL' });
      return;
    } catch (error) {
      const words = error instanceof Failure ? (error.detail ?? '') : '';
      if (coarseClock.test(words) && attempt < attempts) continue;
      if (!/No space left on device/.test(words)) throw error;
      throw new Failure('no-space', `there is no room for ${disk.path}`, { cause: error });
    }
  }
}

function createArguments(disk: NewQcow2): string[] {
  const { path, size, backing, passphraseFile } = disk;
  return [
    ...['create', '-q', '-f', 'qcow2', '-o', layoutOptions(disk)],
    ...secretArguments(passphraseFile),
    ...(backing === undefined ? [] : ['-b', backing.path, '-F', backing.format]),
    path,
    ...(size === undefined ? [] : [String(size)]),
  ];
}

/** A disk as `--image-opts` has it, for changes of its tables: freed clusters go back to the host. */
export function imageOptions(path: string, passphraseFile?: string): string[] {
  const image = { discard: 'unmap', 'file.driver': 'file', 'file.filename': path, 'file.discard': 'unmap' };
  const secret = passphraseFile === undefined ? {} : { 'encrypt.key-secret': 'passphrase' };
  return [
    ...secretArguments(passphraseFile),
    ...['--image-opts', optionString('driver=qcow2', { ...image, ...secret })],
  ];
}

/**
 * The most bytes that a qcow2 of this virtual size can take on the host, whatever is written to it: its content, 16 bytes of
 * an extended entry and 2 of a count for each cluster, the tables of these, and what LUKS puts in front. Never less than
 * `qemu-img measure` says, and asked without a process.
 */
export function qcow2Bound(virtual: number, clusterSize = 65536): number {
  const clusters = Math.ceil(virtual / clusterSize);
  return (
    clusters * clusterSize + Math.ceil(clusters * 18 * (1 + 16 / clusterSize)) + 4 * 2 ** 20 + 8 * clusterSize
  );
}
