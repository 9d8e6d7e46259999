import { readdir, rename, rm } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { actualSize, exists, readIfExists } from '../host/files.ts';
import { pulledImage, pulledManifest, type PulledImage } from './pulled.ts';
import { flavours, imageFormat, type Flavour } from './recipe.ts';

/** What is known of an image that was built: `manifest.json` in its folder, and what `--json` shows. */
export interface ImageManifest {
  readonly format: number;
  readonly digest: string;
  /** The kernel stage it was made from. */
  readonly kernelDigest: string;
  readonly flavour: Flavour;
  /** The tools of a kernel build are in it. */
  readonly tools?: boolean;
  readonly suite: string;
  readonly architecture: string;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  readonly mirror: string;
  /** Name of the kernel's file: `vmlinux` (unpacked, boots faster) or `vmlinuz` (where it can't be unpacked). */
  readonly kernelFile: 'vmlinux' | 'vmlinuz';
  /** What is in it: `debian`, `kernel`, `openzfs` (empty without ZFS), `node`, `shares` (what its kernel mounts) ... */
  readonly versions: Readonly<Record<string, string>>;
}

const manifest: v.GenericSchema<unknown, ImageManifest> = v.object({
  format: v.literal(imageFormat),
  digest: v.string(),
  kernelDigest: v.string(),
  flavour: v.picklist(flavours),
  tools: v.exactOptional(v.boolean()),
  suite: v.string(),
  architecture: v.string(),
  createdAt: v.string(),
  mirror: v.string(),
  kernelFile: v.picklist(['vmlinux', 'vmlinuz']),
  versions: v.record(v.string(), v.string()),
});

/** A whole image that was built; every path is absolute. */
export interface Image {
  readonly kind: 'built';
  readonly digest: string;
  readonly folder: string;
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly manifest: ImageManifest;
}

/** What lies in the image folder under a digest. */
export type StoredImage =
  | {
      readonly state: 'whole';
      readonly digest: string;
      readonly image: Image | PulledImage;
      readonly actual: number;
    }
  | {
      readonly state: 'broken';
      readonly digest: string;
      readonly folder: string;
      readonly reason: string;
      readonly actual: number;
    };

const digestPattern = /^[0-9a-f]{64}$/;

/** The folder of compiled kernels and modules, beside the images; the next image is made from them. */
export function kernelFolder(images: string): string {
  return join(images, '.kernels');
}

/** The archive that the kernel stage leaves for the next one. */
export function kernelArchive(images: string, kernelDigest: string): string {
  return join(kernelFolder(images), `${kernelDigest}.tar.gz`);
}

/** Looks at one image; never throws on a damaged one. Undefined if there is none of this digest. */
export async function inspectImage(images: string, digest: string): Promise<StoredImage | undefined> {
  const folder = join(images, digest);
  if (!digestPattern.test(digest) || !exists(folder)) return undefined;
  const actual = await folderSize(folder);
  const broken = (reason: string): StoredImage => ({ state: 'broken', digest, folder, reason, actual });
  try {
    const text = readIfExists(join(folder, 'manifest.json'));
    if (text === undefined) return broken('manifest.json is missing');
    const written: unknown = JSON.parse(text);
    const pulled = v.safeParse(pulledManifest, written);
    if (pulled.success) {
      const image = pulledImage(folder, pulled.output);
      return typeof image === 'string' ? broken(image) : { state: 'whole', digest, image, actual };
    }
    const parsed = v.safeParse(manifest, written);
    if (!parsed.success) return broken(`manifest.json: ${parsed.issues[0].message}`);
    const files = { disk: 'disk.qcow2', kernel: parsed.output.kernelFile, initrd: 'initrd' };
    for (const name of Object.values(files)) {
      if (!exists(join(folder, name))) return broken(`${name} is missing`);
    }
    const image: Image = {
      kind: 'built',
      digest,
      folder,
      disk: join(folder, files.disk),
      kernel: join(folder, files.kernel),
      initrd: join(folder, files.initrd),
      manifest: parsed.output,
    };
    return { state: 'whole', digest, image, actual };
  } catch (error) {
    return broken(messageOf(error));
  }
}

/** The image that was built, if it is one and whole. */
export function builtOf(stored: StoredImage | undefined): Image | undefined {
  return stored?.state === 'whole' && stored.image.kind === 'built' ? stored.image : undefined;
}

/** The image that was pulled, if it is one and whole. */
export function pulledOf(stored: StoredImage | undefined): PulledImage | undefined {
  return stored?.state === 'whole' && stored.image.kind === 'pulled' ? stored.image : undefined;
}

/** All images, whole and broken, in the order of their digests. */
export async function listImages(images: string): Promise<StoredImage[]> {
  const digests = (await namesIn(images)).filter((name) => digestPattern.test(name)).sort();
  const found = await Promise.all(digests.map((digest) => inspectImage(images, digest)));
  return found.filter((entry) => entry !== undefined);
}

/**
 * Finds one image by its digest or the beginning of it.
 * @throws Failure `not-found` if there is none, `usage` if there are several.
 */
export async function resolveImage(images: string, prefix: string): Promise<StoredImage> {
  const all = await listImages(images);
  const matches = all.filter(({ digest }) => prefix !== '' && digest.startsWith(prefix.toLowerCase()));
  const [match] = matches;
  if (match && matches.length === 1) return match;
  if (match) {
    throw new Failure('usage', `${matches.length} images begin with "${prefix}"`, {
      detail: matches.map(({ digest }) => digest).join('\n'),
      hint: 'give more digits',
    });
  }
  throw new Failure('not-found', `there is no image "${prefix}"`, { hint: 'zfsdev image list' });
}

/**
 * Removes one image. It disappears under its name at once, whatever happens afterwards.
 * @param used digests that instances stand on.
 * @throws Failure `wrong-state` if an instance stands on it, `files` if it can't be removed.
 */
export async function removeImage(
  images: string,
  stored: StoredImage,
  used: ReadonlySet<string>,
): Promise<void> {
  if (used.has(stored.digest)) {
    throw new Failure('wrong-state', `an instance stands on the image ${stored.digest.slice(0, 12)}`, {
      hint: 'zfsdev list shows the instances; zfsdev delete NAME removes one',
    });
  }
  const folder = join(images, stored.digest);
  const leaving = join(images, `.leaving-${stored.digest.slice(0, 12)}-${randomBytes(4).toString('hex')}`);
  try {
    await rename(folder, leaving);
    await rm(leaving, { recursive: true, force: true });
  } catch (error) {
    throw new Failure('files', `${folder} can't be removed: ${messageOf(error)}`, { cause: error });
  }
}

/** What `pruneImages` takes away: images that no instance stands on, and what belongs to no image that stays. */
export interface PrunePlan {
  readonly images: readonly StoredImage[];
  /** Archives of kernel stages, and leftovers of builds, pulls and removals that were cut off; absolute paths. */
  readonly files: readonly string[];
  /** Bytes on the host that this gives back. */
  readonly actual: number;
}

/** Plans a prune. Must be called, and carried out, while no image is being built or pulled (`imageLock`). */
export async function planPrune(images: string, used: ReadonlySet<string>): Promise<PrunePlan> {
  const all = await listImages(images);
  const leaving = all.filter(({ digest }) => !used.has(digest));
  const kernels = new Set<string>();
  for (const entry of all) {
    const built = used.has(entry.digest) ? builtOf(entry) : undefined;
    if (built) kernels.add(built.manifest.kernelDigest);
  }
  const archives = (await namesIn(kernelFolder(images)))
    .filter((name) => !kernels.has(name.replace(/\.tar\.gz$/, '')))
    .map((name) => join(kernelFolder(images), name));
  const leftovers = (await namesIn(images))
    .filter((name) => /^\.(leaving|building|pulling)-|^build-.*\.log$/.test(name))
    .map((name) => join(images, name));
  const files = [...archives, ...leftovers];
  const sizes = [...leaving.map(({ actual }) => actual), ...(await Promise.all(files.map(folderSize)))];
  return { images: leaving, files, actual: sizes.reduce((sum, size) => sum + size, 0) };
}

/** Carries a prune out. @throws Failure as `removeImage`. */
export async function pruneImages(images: string, plan: PrunePlan, used: ReadonlySet<string>): Promise<void> {
  for (const image of plan.images) await removeImage(images, image, used);
  for (const file of plan.files) await rm(file, { recursive: true, force: true });
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw new Failure('files', `${folder} can't be listed: ${messageOf(error)}`, { cause: error });
  }
}

/** Blocks of a file, or of the files of a folder without subfolders, in bytes. */
async function folderSize(path: string): Promise<number> {
  const own = actualSize(path);
  try {
    return (await readdir(path)).reduce((sum, name) => sum + actualSize(join(path, name)), own);
  } catch (error) {
    if (hasCode(error, 'ENOTDIR', 'ENOENT')) return own;
    throw error;
  }
}
