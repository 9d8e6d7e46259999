import { mkdir, mkdtemp, rm, statfs, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { call } from './call.ts';

/** A file system of its own, in a sparse file, that can really be filled; `home` is a state home on it. */
export interface SmallFilesystem {
  readonly home: string;
  /** Bytes taken and bytes free. */
  readonly space: () => Promise<{ readonly used: number; readonly free: number }>;
  /** Takes all but so many bytes; gives what gives them back. */
  readonly fillUpTo: (free: number) => Promise<() => Promise<void>>;
  readonly remove: () => Promise<void>;
}

/** Makes one of `size` bytes whose state home reaches the images of another one through a link. */
export async function smallFilesystem(size: number, images: string): Promise<SmallFilesystem> {
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-full-'));
  const [home, file] = [join(folder, 'small'), join(folder, 'small.img')];
  await writeFile(file, '');
  await truncate(file, size);
  await mkdir(home);
  call('mkfs.ext4', '-q', '-m', '0', '-E', 'lazy_itable_init=1,lazy_journal_init=1', file);
  call('mount', '-o', 'loop', file, home);
  await symlink(images, join(home, 'images'));
  const space = async (): Promise<{ used: number; free: number }> => {
    const { bavail, bfree, blocks, bsize } = await statfs(home);
    return { used: (blocks - bfree) * bsize, free: bavail * bsize };
  };
  return {
    home,
    space,
    fillUpTo: async (free) => {
      const filler = join(home, 'filler');
      const length = (await space()).free - free;
      call('fallocate', '-l', String(length), filler);
      return () => rm(filler);
    },
    remove: async () => {
      call('umount', '--lazy', home);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
