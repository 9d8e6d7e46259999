import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { flush } from '../host/files.ts';
import { inspectImage, removeImage, type StoredImage } from './store.ts';

/**
 * Gives an image its name once all of it is on disk; what stood there before (a broken one, or one that is built again) goes
 * first. To be called under `imageLock`.
 * @param building the folder with its files, beside the images.
 */
export async function publishImage(
  images: string,
  building: string,
  digest: string,
): Promise<StoredImage | undefined> {
  for (const name of await readdir(building)) await flush(join(building, name));
  const old = await inspectImage(images, digest);
  if (old) await removeImage(images, old, new Set());
  await rename(building, join(images, digest));
  await flush(images);
  return inspectImage(images, digest);
}

export { flush };
