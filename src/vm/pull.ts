import { createHash } from 'node:crypto';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { bytes, formatBytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { makePrivateFolder, specialKind, withFile } from '../host/files.ts';
import { imageLock } from '../image/build.ts';
import { digestsOf, type DigestAlgorithm } from '../image/digest.ts';
import { download, type DownloadOptions } from '../image/download.ts';
import { hasPartitionTable, refuseOther } from '../image/identify.ts';
import { findPulled, keepImage, type Verified, type Wanted } from '../image/keep.ts';
import { pulledFormat, type PulledImage, type PulledManifest } from '../image/pulled.ts';
import { RateMeter } from '../image/rate.ts';
import { readDisk, withQcow2, type DiskContent } from '../qemu/qcow2.ts';
import { isUrl } from '../template/image.ts';
import { checkSpace } from './admission.ts';

export interface PullOptions {
  /** Go on although it might not fit beside the worst case of everything. */
  readonly overcommit: boolean;
  /** For tests. */
  readonly patience?: Pick<DownloadOptions, 'stallAfter' | 'pause'>;
}

type Tell = (text: string, fraction?: number) => void;

/** What is wanted, and for a file what it is now. @throws Failure `not-found`, `files` */
export async function wantedImage(image: {
  readonly location: string;
  readonly digest?: string | undefined;
}): Promise<Wanted> {
  const { location, digest } = image;
  if (isUrl(location)) return { location, digest };
  try {
    const found = await stat(location);
    const special = found.isDirectory() ? 'a folder' : specialKind(found);
    if (special) throw new Failure('image', `${location} is ${special}, not a disk image`);
    return { location, digest, file: { bytes: found.size, modified: found.mtimeMs } };
  } catch (error) {
    if (error instanceof Failure) throw error;
    // Content that is known by its digest, and was pulled, is as good as the file.
    if (digest !== undefined && hasCode(error, 'ENOENT', 'ENOTDIR')) return { location, digest };
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) throw absent(location);
    throw new Failure('files', `${location} can't be looked at: ${messageOf(error)}`, { cause: error });
  }
}

function absent(location: string): Failure {
  return new Failure('not-found', `there is no image ${location} on this host`, {
    hint: 'an address begins with https://',
  });
}

/**
 * Gives the image that is wanted; fetches or copies it if it isn't there, verifies it, and keeps it among the others.
 * @throws Failure `image` for one that can't be had or used, `not-found`, `no-space`, `interrupted`, `files`, `process`
 */
export async function pullImage(ctx: Context, wanted: Wanted, options: PullOptions): Promise<PulledImage> {
  const { images } = ctx.paths;
  const present = await findPulled(images, wanted);
  if (present) return present;
  if (!isUrl(wanted.location) && wanted.file === undefined) throw absent(wanted.location);
  await makePrivateFolder(images);
  const lock = await imageLock(ctx);
  try {
    // Another process may have pulled it while this one waited.
    const pulled = await findPulled(images, wanted);
    if (pulled) return pulled;
    return await step(
      ctx.emit,
      'image',
      `Pulling ${wanted.location}`,
      (tell) => (isUrl(wanted.location) ? fetchImage : copyImage)(ctx, wanted, options, tell),
      ({ digest, manifest }) => `${digest.slice(0, 12)}, ${formatBytes(manifest.virtualBytes)} virtual`,
    );
  } finally {
    await lock.release();
  }
}

async function fetchImage(
  ctx: Context,
  wanted: Wanted,
  options: PullOptions,
  tell: Tell,
): Promise<PulledImage> {
  const { location } = wanted;
  const { images } = ctx.paths;
  const name = createHash('sha256').update(location).digest('hex').slice(0, 12);
  const folder = join(images, `.pulling-${name}`);
  const meter = new RateMeter(tell);
  const file = await download(location, folder, {
    signal: ctx.signal,
    progress: (done, total) => meter.moved(done, total),
    notice: (text) => ctx.emit({ type: 'notice', level: 'info', text }),
    admit: (left) => admit(ctx, location, left, options),
    look: (start) => refuseOther(start, location),
    ...options.patience,
  });
  try {
    const kept = await verifyAndKeep(ctx, { path: file, isOurs: true }, wanted, options, tell);
    await rm(folder, { recursive: true, force: true });
    return kept;
  } catch (error) {
    // What came is not what was wanted, and never will be by going on from there.
    if (error instanceof Failure && error.reason === 'image')
      await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function copyImage(
  ctx: Context,
  wanted: Wanted,
  options: PullOptions,
  tell: Tell,
): Promise<PulledImage> {
  const recheck = (): Promise<void> => refuseChanged(wanted);
  return verifyAndKeep(ctx, { path: wanted.location, isOurs: false, recheck }, wanted, options, tell);
}

async function verifyAndKeep(
  ctx: Context,
  verified: Verified,
  wanted: Wanted,
  options: PullOptions,
  tell: Tell,
): Promise<PulledImage> {
  const { location, digest, file } = wanted;
  const disk = await checkImageFile(verified.path, location);
  const asked = digest?.split(':')[0] as DigestAlgorithm | undefined;
  const algorithms: DigestAlgorithm[] = asked === 'sha512' ? ['sha256', 'sha512'] : ['sha256'];
  const [sha256 = '', sha512] = await digestsOf(verified.path, algorithms, {
    signal: ctx.signal,
    progress: (done, total) => tell(`verifying: ${formatBytes(done)} of ${formatBytes(total)}`, done / total),
  });
  const found = asked === 'sha512' ? `sha512:${sha512}` : `sha256:${sha256}`;
  if (digest !== undefined && found !== digest) throw otherDigest(location, found, digest);
  if (!verified.isOurs || disk.sourceFormat === 'raw')
    await admit(ctx, location, (await stat(verified.path)).blocks * 512, options);
  const manifest: PulledManifest = {
    kind: 'pulled',
    format: pulledFormat,
    digest: sha256,
    ...(sha512 === undefined ? {} : { sha512 }),
    location,
    ...(file === undefined ? {} : { file }),
    ...disk,
    createdAt: new Date().toISOString(),
  };
  return keepImage(ctx, verified, manifest);
}

function otherDigest(location: string, found: string, wanted: string): Failure {
  return new Failure('image', `${location} is not the image that was asked for: its digest is another`, {
    detail: `found   ${found}\nwanted  ${wanted}`,
    hint: 'take the digest from the SHA256SUMS or SHA512SUMS beside the image; a publisher may have put a newer one there',
    data: { location, found, wanted },
  });
}

/** A file that was written to while it was read: what was verified isn't what was copied. */
async function refuseChanged({ location, file, digest }: Wanted): Promise<void> {
  const now = (await wantedImage({ location, digest })).file;
  if (now?.bytes === file?.bytes && now?.modified === file?.modified) return;
  throw new Failure('image', `${location} changed while it was read`, {
    hint: 'wait until nothing writes to it, then try again',
  });
}

/** @throws Failure `no-space` if so many bytes more don't fit beside the worst case of everything. */
async function admit(ctx: Context, location: string, more: number, options: PullOptions): Promise<void> {
  const claim = { what: 'the image (pulled)', path: ctx.paths.images, bound: bytes(more), allocated: 0 };
  await checkSpace(ctx, [claim], `the image ${location}`, options.overcommit);
}

/**
 * Looks at a file before anything else reads it: one that leads to other files would have QEMU read them.
 * @throws Failure `image` if it is no disk image, or one that a machine can't stand on
 */
export async function checkImageFile(
  path: string,
  location: string,
): Promise<Pick<PulledManifest, 'sourceFormat' | 'virtualBytes'>> {
  const start = await withFile(path, async (file) => {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(8192), 0, 8192, 0);
    return buffer.subarray(0, bytesRead);
  });
  refuseOther(start, location);
  const content = contentOf(path, location);
  if (content.kind === 'qcow2') {
    await refuseDependent(path, location);
    return { sourceFormat: 'qcow2', virtualBytes: content.qcow2.virtual };
  }
  if (content.kind === 'iso') {
    throw new Failure('image', `${location} is a CD, not the disk of a machine`, {
      hint: 'take a cloud image: it ends in .qcow2 or .img',
    });
  }
  if (!hasPartitionTable(start)) {
    throw new Failure('image', `${location} is no disk image: it is no qcow2, and has no partitions`, {
      hint: 'take a cloud image: it ends in .qcow2, .img or .raw',
    });
  }
  const { size } = await stat(path);
  return { sourceFormat: 'raw', virtualBytes: Math.ceil(size / 512) * 512 };
}

function contentOf(path: string, location: string): DiskContent {
  try {
    return readDisk(path);
  } catch (error) {
    throw new Failure('image', `${location} is damaged, or cut off: ${messageOf(error)}`, { cause: error });
  }
}

async function refuseDependent(path: string, location: string): Promise<void> {
  await withQcow2(path, (_, { backing, external, encrypted, corrupt }) => {
    const flat = `make one file of it where it was made: qemu-img convert -O qcow2 IN OUT`;
    if (backing !== undefined)
      throw new Failure('image', `${location} stands on another file, ${backing}`, { hint: flat });
    if (external) throw new Failure('image', `${location} has its data in another file`, { hint: flat });
    if (encrypted) throw new Failure('image', `${location} is encrypted`, { hint: 'decrypt it first' });
    if (corrupt) throw new Failure('image', `${location} is marked as corrupt`, { hint: 'get it anew' });
    return Promise.resolve();
  });
}
