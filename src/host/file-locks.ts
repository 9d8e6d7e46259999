import { readFile } from 'node:fs/promises';

/** QEMU's lock of those who may write: byte 100 and the number of the right to (block/file-posix.c, RAW_LOCK_PERM_BASE). */
const writersByte = 101;

/** Tells files apart across the host: device and inode, as /proc/locks has them. */
export function lockKey({ dev, ino }: { readonly dev: number; readonly ino: number }): string {
  const upper = Math.floor(dev / 2 ** 32);
  const major = ((dev >>> 8) & 0xfff) | (upper & ~0xfff);
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return `${hex(major)}:${hex(minor)}:${ino}`;
}

/**
 * The files that a QEMU has open for writing now (`lockKey`), machines, `qemu-nbd` and `qemu-img` alike: the kernel lists
 * their locks, so no lock has to be taken to know. Empty where there is no such list (macOS).
 */
export async function filesQemuWrites(): Promise<ReadonlySet<string>> {
  let text: string;
  try {
    text = await readFile('/proc/locks', 'utf8');
  } catch {
    return new Set();
  }
  return new Set(
    text
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      // 7: OFDLCK ADVISORY READ -1 fe:00:131074 101 101
      .filter(
        ([, kind, , , , , from, to]) =>
          kind === 'OFDLCK' && Number(from) <= writersByte && (to === 'EOF' || Number(to) >= writersByte),
      )
      .map((fields) => fields[5] ?? ''),
  );
}
