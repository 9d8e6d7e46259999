import { randomBytes } from 'node:crypto';
import { chmod, constants, copyFile, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { writeFileAtomically } from '../host/files.ts';
import { publishImage } from './publish.ts';
import type { PulledImage, PulledManifest } from './pulled.ts';
import { inspectImage, listImages, pulledOf } from './store.ts';

/** What is asked for: the content by its digest, or whatever a file holds now. */
export interface Wanted {
  readonly location: string;
  readonly digest?: string | undefined;
  /** Of the file at `location`. */
  readonly file?: PulledManifest['file'];
}

/** The image that fits, if it was pulled before: of this digest, or else of this file, unchanged. */
export async function findPulled(images: string, wanted: Wanted): Promise<PulledImage | undefined> {
  const pulled = (await listImages(images)).map(pulledOf).filter((image) => image !== undefined);
  return pulled.find(({ manifest }) => fits(manifest, wanted));
}

function fits(manifest: PulledManifest, { location, digest, file }: Wanted): boolean {
  const [algorithm, digits] = (digest ?? '').split(':');
  if (algorithm === 'sha256') return manifest.digest === digits;
  if (algorithm === 'sha512') return manifest.sha512 === digits;
  return (
    file !== undefined &&
    manifest.location === location &&
    manifest.file?.bytes === file.bytes &&
    manifest.file.modified === file.modified
  );
}

/** A file that was verified, and may be used up if it is a download of zfsdev's own. */
export interface Verified {
  readonly path: string;
  readonly isOurs: boolean;
  /** Asked after it was copied; what it throws keeps the copy from being used. */
  readonly recheck?: () => Promise<void>;
}

/**
 * Puts a verified disk among the images, under its digest; a raw one as qcow2, which leaves out what it has in zeros. To be
 * called under `imageLock`.
 * @throws Failure `files`, `process`, `interrupted`
 */
export async function keepImage(
  ctx: Context,
  { path, isOurs, recheck }: Verified,
  manifest: PulledManifest,
): Promise<PulledImage> {
  const { images } = ctx.paths;
  const present = pulledOf(await inspectImage(images, manifest.digest));
  if (present) return remember(present, manifest);
  const building = join(
    images,
    `.building-${manifest.digest.slice(0, 12)}-${randomBytes(4).toString('hex')}`,
  );
  return withUndo(async (undo) => {
    undo.add('the unfinished image', () => rm(building, { recursive: true, force: true }));
    await mkdir(building, { mode: 0o700 });
    const disk = join(building, 'disk.qcow2');
    if (manifest.sourceFormat === 'raw') await convertRaw(ctx, path, disk);
    else await placeFile(path, disk, isOurs);
    await recheck?.();
    await chmod(disk, 0o600);
    await writeManifest(building, manifest);
    const image = pulledOf(await publishImage(images, building, manifest.digest));
    if (!image) throw new Error('the image that was just pulled is not whole');
    return image;
  });
}

/** The same content from another place, or told by another digest: only what is known of it changes. */
async function remember(
  image: PulledImage,
  { location, file, sha512 }: PulledManifest,
): Promise<PulledImage> {
  const known = { ...image.manifest, location, file, ...(sha512 === undefined ? {} : { sha512 }) };
  await writeManifest(image.folder, known);
  return { ...image, manifest: known };
}

async function writeManifest(folder: string, manifest: PulledManifest): Promise<void> {
  await writeFileAtomically(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

async function placeFile(from: string, to: string, mayMove: boolean): Promise<void> {
  try {
    if (mayMove) await rename(from, to);
    // Where the file system can, both share their blocks.
    else await copyFile(from, to, constants.COPYFILE_FICLONE);
  } catch (error) {
    const full = hasCode(error, 'ENOSPC', 'EDQUOT');
    throw new Failure(full ? 'no-space' : 'files', `${from} can't be copied: ${messageOf(error)}`, {
      ...(full ? { hint: 'zfsdev usage tells what takes the room' } : {}),
      cause: error,
    });
  }
}

async function convertRaw(ctx: Context, from: string, to: string): Promise<void> {
  await ctx.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', from, to], {
    effect: 'write',
    deadline: 3_600_000,
    signal: ctx.signal,
    orphanSignal: 'KILL',
  });
}
