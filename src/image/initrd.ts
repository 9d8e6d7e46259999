import { cpioArchive, type CpioEntry } from './cpio.ts';

/** What the initrd is made of. */
export interface InitrdParts {
  readonly init: Uint8Array;
  /** A static busybox. */
  readonly busybox: Uint8Array;
  /** Kernel modules, uncompressed, in the order in which they are to be loaded: init takes them by name. */
  readonly modules: ReadonlyMap<string, Uint8Array>;
}

/** The image's initrd. Not compressed: unpacking would cost more than reading does where the CPU is emulated. */
export function initrdArchive(parts: InitrdParts): Buffer {
  const folders = ['bin', 'dev', 'proc', 'sys', 'root', 'modules'];
  return cpioArchive([
    ...folders.map((path): CpioEntry => ({ type: 'folder', path })),
    { type: 'device', path: 'dev/console', major: 5, minor: 1 },
    { type: 'file', path: 'bin/busybox', mode: 0o755, content: parts.busybox },
    { type: 'link', path: 'bin/sh', target: 'busybox' },
    { type: 'file', path: 'init', mode: 0o755, content: parts.init },
    ...[...parts.modules].map(([name, content]): CpioEntry => ({
      type: 'file',
      path: `modules/${name}`,
      content,
    })),
  ]);
}
