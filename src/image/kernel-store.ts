import { randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Paths } from '../host/paths.ts';
import { actualSize, exists, readIfExists } from '../host/files.ts';

/** What an archive of a kernel tells of itself: its `manifest.json`, written where it was built. */
const manifestSchema = v.object({
  format: v.literal(1),
  /** What `uname -r` says under it. */
  release: v.pipe(v.string(), v.regex(/^[\w.+~-]{1,64}$/)),
  /** As `uname -m` has it, but arm64 for aarch64. */
  architecture: v.string(),
  source: v.string(),
  sourceSha256: v.string(),
  config: v.string(),
  localversion: v.string(),
  /** Version of OpenZFS; empty without. */
  zfs: v.string(),
  zfsSha256: v.string(),
  compiler: v.string(),
  /** The options that a machine needs were merged in. */
  guest: v.boolean(),
  /** The most that building it took on the disk. */
  peakBytes: v.number(),
  /** The request it was built from, as JSON. */
  options: v.string(),
  /** ISO 8601. */
  built: v.string(),
});

export type KernelManifest = v.InferOutput<typeof manifestSchema>;

/** A kernel that machines can boot; every path is absolute. */
export interface Kernel {
  /** sha256 of its archive. */
  readonly digest: string;
  readonly folder: string;
  readonly image: string;
  readonly initrd: string;
  readonly modules: string;
  readonly manifest: KernelManifest;
}

export type StoredKernel =
  | { readonly state: 'whole'; readonly digest: string; readonly kernel: Kernel; readonly actual: number }
  | { readonly state: 'broken'; readonly digest: string; readonly reason: string; readonly actual: number };

const digestPattern = /^[0-9a-f]{64}$/;

/** Reads a manifest. @throws Failure `files` that says what is wrong with it */
export function parseKernelManifest(text: string): KernelManifest {
  try {
    return v.parse(manifestSchema, JSON.parse(text));
  } catch (error) {
    throw new Failure('files', `its manifest.json is damaged: ${messageOf(error)}`, { cause: error });
  }
}

/** Looks at one kernel; never throws on a damaged one. Undefined if there is none of this digest. */
export function inspectKernel(paths: Paths, digest: string): StoredKernel | undefined {
  const own = paths.kernel(digest);
  if (!digestPattern.test(digest) || !exists(own.folder)) return undefined;
  const files = [own.image, own.initrd, own.modules, own.manifest];
  const actual = files.reduce((sum, file) => sum + actualSize(file), 0);
  const broken = (reason: string): StoredKernel => ({ state: 'broken', digest, reason, actual });
  try {
    const missing = files.find((file) => !exists(file));
    if (missing) return broken(`${missing} is missing`);
    const manifest = parseKernelManifest(readIfExists(own.manifest) ?? '');
    const { folder, image, initrd, modules } = own;
    return { state: 'whole', digest, kernel: { digest, folder, image, initrd, modules, manifest }, actual };
  } catch (error) {
    return broken(messageOf(error));
  }
}

/** The kernel an instance boots. @throws Failure `image` if it is gone or broken */
export function requireKernel(
  paths: Paths,
  { digest, release }: { readonly digest: string; readonly release: string },
): Kernel {
  const found = inspectKernel(paths, digest);
  if (found?.state === 'whole') return found.kernel;
  throw new Failure('image', `the kernel ${release} is ${found ? `broken: ${found.reason}` : 'gone'}`, {
    hint: 'zfsdev kernel add FILE takes its archive in again, and the instance works again',
    data: { digest },
  });
}

/** All kernels, whole and broken, in the order of their digests. */
export async function listKernels(paths: Paths): Promise<StoredKernel[]> {
  try {
    const digests = (await readdir(paths.kernels)).filter((name) => digestPattern.test(name)).sort();
    return digests.map((digest) => inspectKernel(paths, digest)).filter((found) => found !== undefined);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw new Failure('files', `${paths.kernels} can't be listed: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * Finds one kernel by its digest, the beginning of that, or its release.
 * @throws Failure `not-found` if there is none, `usage` if there are several.
 */
export async function resolveKernel(paths: Paths, word: string): Promise<StoredKernel> {
  const all = await listKernels(paths);
  const matches = all.filter(
    (each) =>
      word !== '' &&
      (each.digest.startsWith(word.toLowerCase()) ||
        (each.state === 'whole' && each.kernel.manifest.release === word)),
  );
  const [match] = matches;
  if (match && matches.length === 1) return match;
  if (match) {
    throw new Failure('usage', `${matches.length} kernels are called "${word}"`, {
      detail: matches.map(({ digest }) => digest).join('\n'),
      hint: 'give the digest, or the beginning of it',
    });
  }
  throw new Failure('not-found', `there is no kernel "${word}"`, { hint: 'zfsdev kernel list' });
}

/**
 * Removes a kernel; it disappears under its name at once. The archive it came from is the user's, and stays.
 * @param users instances that boot it.
 * @throws Failure `wrong-state` if there are any, `files`
 */
export async function removeKernel(
  paths: Paths,
  { digest }: StoredKernel,
  users: readonly string[],
): Promise<void> {
  if (users.length > 0) {
    throw new Failure(
      'wrong-state',
      `${users.join(', ')} ${users.length === 1 ? 'boots' : 'boot'} this kernel`,
      {
        hint: `zfsdev delete --force ${users.join(' ')}`,
        data: { digest, users },
      },
    );
  }
  const leaving = join(paths.kernels, `.leaving-${digest.slice(0, 12)}-${randomBytes(4).toString('hex')}`);
  try {
    await rename(paths.kernel(digest).folder, leaving);
    await rm(leaving, { recursive: true, force: true });
  } catch (error) {
    throw new Failure('files', `the kernel can't be removed: ${messageOf(error)}`, { cause: error });
  }
}
