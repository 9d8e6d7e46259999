import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { call } from './call.ts';

interface StoredImage {
  readonly folder: string;
  readonly flavour: string;
  readonly kernelDigest: string;
}

/** What the archive of a kernel tells of itself, where a test doesn't say otherwise. */
export const kernelManifest = {
  release: '1',
  ...{
    format: 1,
    architecture: process.arch === 'arm64' ? 'arm64' : 'x86_64',
    source: 'the image',
    sourceSha256: '',
  },
  ...{ config: 'its own', localversion: '', zfs: '2.3', zfsSha256: '', compiler: 'gcc', guest: true },
  ...{ peakBytes: 0, options: '{}', built: '2026-01-01T00:00:00Z' },
};

/**
 * Makes the archive of a kernel of the image's own: it boots, and has ZFS, without an hour of compiling. Gives its path and its
 * release.
 */
export async function imageKernel(
  home: string,
  folder: string,
  more: Readonly<Record<string, unknown>> = {},
): Promise<{ archive: string; release: string }> {
  const image = await zfsImage(home);
  const [unpacked, packed] = [join(folder, 'unpacked'), join(folder, 'packed')];
  await mkdir(unpacked, { recursive: true });
  await mkdir(join(packed, 'modules'), { recursive: true });
  call('tar', '-C', unpacked, '-xzf', join(home, 'images', '.kernels', `${image.kernelDigest}.tar.gz`));
  const [release = ''] = await readdir(join(unpacked, 'lib/modules'));
  await cp(join(unpacked, 'lib/modules', release), join(packed, 'modules', release), { recursive: true });
  await cp(join(unpacked, 'zfsdev/vmlinuz'), join(packed, 'vmlinuz'));
  await cp(join(image.folder, 'initrd'), join(packed, 'initrd'));
  await writeFile(join(packed, 'System.map'), '');
  await writeFile(join(packed, 'config'), '');
  await writeFile(join(packed, 'manifest.json'), JSON.stringify({ ...kernelManifest, release, ...more }));
  call(
    'sh',
    '-c',
    `cd "$1" && find . -type f | sed 's,^./,,' | xargs sha256sum >../sums && mv ../sums SHA256SUMS`,
    'sh',
    packed,
  );
  const archive = join(folder, 'kernel.tar.zst');
  call('tar', '-C', packed, '--zstd', '-cf', archive, '.');
  return { archive, release };
}

async function zfsImage(home: string): Promise<StoredImage> {
  const images = join(home, 'images');
  for (const name of await readdir(images)) {
    const text = await readFile(join(images, name, 'manifest.json'), 'utf8').catch(() => undefined);
    const found = text === undefined ? undefined : (JSON.parse(text) as Omit<StoredImage, 'folder'>);
    if (found?.flavour === 'zfs') return { ...found, folder: join(images, name) };
  }
  throw new Error(`there is no image in ${images}`);
}
