import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { MiB } from '../core/bytes.ts';
import { Failure, messageOf } from '../core/errors.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { exists, flush, makePrivateFolder, readIfExists } from '../host/files.ts';
import { lockWaiting } from '../host/lock.ts';
import { inspectKernel, parseKernelManifest, type Kernel } from './kernel-store.ts';

/** The checksum of a file, in hex, without reading it into memory. @throws Failure `files`, `interrupted` */
export async function sha256Of(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(path), hash, { signal });
  } catch (error) {
    if (signal.aborted) throw new Failure('interrupted', `interrupted while ${path} was read`);
    throw new Failure('files', `${path} can't be read: ${messageOf(error)}`, { cause: error });
  }
  return hash.digest('hex');
}

/** tar's own words on a packer that isn't there name no package. @throws Failure `dependency` */
export async function requireZstd(ctx: Context): Promise<void> {
  await ctx.run(['zstd', '--version'], { effect: 'read', deadline: 30_000, signal: ctx.signal });
}

/**
 * Takes the archive of a kernel in: unpacked, each file compared with SHA256SUMS, its modules made a file system of their
 * own. An archive that was taken in before is only looked up. Nothing of it is run.
 * @throws Failure `files` for what is no such archive or a damaged one, `interrupted`, `dependency`
 */
export async function takeInKernel(ctx: Context, archive: string): Promise<Kernel> {
  const digest = await sha256Of(archive, ctx.signal);
  const present = inspectKernel(ctx.paths, digest);
  if (present?.state === 'whole') return present.kernel;
  const held = await lockWaiting(ctx.paths.lock('kernels'), ctx.signal);
  try {
    const made = inspectKernel(ctx.paths, digest);
    if (made?.state === 'whole') return made.kernel;
    return await takeIn(ctx, archive, digest);
  } finally {
    await held.release();
  }
}

async function takeIn(ctx: Context, archive: string, digest: string): Promise<Kernel> {
  const target = ctx.paths.kernel(digest);
  await requireZstd(ctx);
  await sweep(ctx);
  return withUndo(async (undo) => {
    const taking = join(ctx.paths.kernels, `.taking-${digest.slice(0, 12)}`);
    undo.add('the half-unpacked kernel', () => rm(taking, { recursive: true, force: true }));
    await makePrivateFolder(taking);
    await unpack(ctx, archive, taking);
    const sums = readIfExists(join(taking, 'SHA256SUMS'));
    const manifest = readIfExists(join(taking, 'manifest.json'));
    if (sums === undefined || manifest === undefined)
      throw notAnArchive(archive, `it has no ${sums === undefined ? 'SHA256SUMS' : 'manifest.json'}`);
    await checkSums(ctx, archive, taking, sums);
    const { release } = parseKernelManifest(manifest);
    await packModules(ctx, join(taking, 'modules', release), join(taking, 'modules.ext4'));
    await rm(join(taking, 'modules'), { recursive: true, force: true });
    for (const name of await readdir(taking)) await flush(join(taking, name));
    // What is left of a broken one must not be in the way.
    await rm(target.folder, { recursive: true, force: true });
    await rename(taking, target.folder);
    await flush(dirname(target.folder));
    const found = inspectKernel(ctx.paths, digest);
    if (found?.state === 'whole') return found.kernel;
    throw notAnArchive(archive, found?.reason ?? 'it is gone');
  });
}

/** What killed processes left; the caller holds the lock. */
async function sweep({ paths }: Context): Promise<void> {
  await makePrivateFolder(paths.kernels);
  const left = (await readdir(paths.kernels)).filter((name) => /^\.(taking|leaving)-/.test(name));
  for (const name of left) await rm(join(paths.kernels, name), { recursive: true, force: true });
}

async function unpack(ctx: Context, archive: string, folder: string): Promise<void> {
  try {
    await ctx.run(
      ['tar', '--zstd', '--no-same-owner', '--no-same-permissions', '-C', folder, '-xf', archive],
      { effect: 'write', deadline: 600_000, signal: ctx.signal },
    );
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== 'process') throw error;
    throw notAnArchive(archive, error.detail ?? error.message);
  }
}

function notAnArchive(archive: string, why: string): Failure {
  return new Failure('files', `${archive} is not a whole archive of a kernel: ${why}`, {
    hint: 'zfsdev build-kernel makes one',
  });
}

async function checkSums(ctx: Context, archive: string, folder: string, text: string): Promise<void> {
  const lines = text.trimEnd().split('\n');
  const wanted = new Map(lines.map((line): [string, string] => [line.slice(66), line.slice(0, 64)]));
  const names = (await filesOf(folder, folder)).filter((name) => name !== 'SHA256SUMS');
  const stranger = names.find((name) => !wanted.has(name));
  if (stranger !== undefined) throw notAnArchive(archive, `${stranger} is not in its SHA256SUMS`);
  for (const [name, sum] of wanted) {
    if (!names.includes(name)) throw notAnArchive(archive, `${name} is missing`);
    if ((await sha256Of(join(folder, name), ctx.signal)) !== sum)
      throw notAnArchive(archive, `the checksum of ${name} is wrong`);
  }
}

/** All files below a folder. @throws Failure for a link or a device, which no such archive has */
async function filesOf(root: string, folder: string): Promise<string[]> {
  const found = await readdir(folder, { withFileTypes: true });
  const names = await Promise.all(
    found.map(async (entry): Promise<string[]> => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return filesOf(root, path);
      if (entry.isFile()) return [relative(root, path)];
      throw new Failure('files', `${relative(root, path)} in the archive is neither a file nor a folder`);
    }),
  );
  return names.flat();
}

/** The modules as a file system that a machine mounts, never to be written to. */
async function packModules(ctx: Context, folder: string, target: string): Promise<void> {
  if (!exists(folder)) await mkdir(folder, { recursive: true });
  const { stdout } = await ctx.run(['du', '-s', '--block-size=1', '--', folder], {
    effect: 'read',
    deadline: 60_000,
  });
  const size = Math.ceil((Number(stdout.split('\t')[0]) * 1.15) / MiB + 4);
  const layout = ['-t', 'ext4', '-O', '^has_journal', '-m', '0', '-L', 'zfsdev-modules'];
  await ctx.run(
    [
      'mke2fs',
      '-q',
      '-F',
      ...layout,
      '-E',
      'root_owner=0:0,lazy_itable_init=0',
      '-d',
      folder,
      target,
      `${size}m`,
    ],
    {
      effect: 'write',
      deadline: 600_000,
      signal: ctx.signal,
    },
  );
  await stat(target);
}
