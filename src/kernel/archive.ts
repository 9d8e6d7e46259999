import { constants } from 'node:fs';
import { access, chmod, copyFile, lstat, mkdir, rename, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { formatBytes, MiB } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { filesystemOf } from '../host/free-space.ts';
import { isTaken, makeWholeFile } from '../host/whole-file.ts';
import { sha256Of } from '../image/kernel-archive.ts';
import { parseKernelManifest } from '../image/kernel-store.ts';
import type { Builder } from './builder.ts';
import type { Facts } from './pipeline.ts';
import type { KernelRequest } from './request.ts';

/** What an archive has at its top. */
export const members = ['manifest.json', 'SHA256SUMS', 'System.map', 'config', 'initrd', 'vmlinuz'] as const;

export interface Delivered {
  readonly path: string;
  readonly sha256: string;
  readonly log: string;
}

/** Where an archive and its log go. */
export interface Output {
  readonly folder: string;
  /** They may take the place of files that are there, once they are whole. */
  readonly overwrite: boolean;
}

/** The names of an archive and its log: both are the kernel's release. */
function placesOf(folder: string, archive: string): Pick<Delivered, 'path' | 'log'> {
  const path = join(folder, archive);
  return { path, log: path.replace(/\.tar\.zst$/, '.log') };
}

/**
 * Looks whether the archive of a release and its log have their names free, as soon as the release is known: hours before they
 * are written. @throws Failure `already-exists`
 */
export function checkNames(output: Output, release: string, afterwards: readonly string[]): void {
  const places = placesOf(output.folder, `kernel-${release}.tar.zst`);
  if (!output.overwrite) for (const path of [places.path, places.log]) refuseTaken(path, afterwards);
}

/**
 * Brings the archive out of the builder into a folder: written beside, compared with what the builder says it is, looked
 * through, and only then given its name. The log comes with it. Neither takes the place of anything unasked; but the very same
 * archive, which an earlier call brought out, is all that is wanted.
 * @throws Failure `files` if it can't be written or is not what was packed, `already-exists`, `interrupted`
 */
export async function deliver(
  ctx: Context,
  builder: Builder,
  facts: Facts,
  output: Output,
  log: string,
): Promise<Delivered> {
  const name = facts.get('archive') ?? '';
  const expected = facts.get('sha256') ?? '';
  if (basename(name) !== name || !name.endsWith('.tar.zst'))
    throw new Failure('files', `the builder names no archive: "${name}"`);
  const places = placesOf(output.folder, name);
  const { overwrite } = output;
  const put = overwrite ? { put: rename } : {};
  try {
    const isThere = !overwrite && (await hasSum(ctx, places.path, expected));
    if (!isThere) {
      if (!overwrite) for (const path of [places.path, places.log]) refuseTaken(path, builder.afterwards);
      const fill = async (file: string): Promise<void> => {
        await builder.fetch(name, file);
        await verify(ctx, file, expected);
        await chmod(file, publicMode());
      };
      await makeWholeFile(ctx, places.path, { fill, ...put });
    }
    if (!isThere || !isTaken(places.log)) {
      const fill = async (file: string): Promise<void> => {
        await copyFile(log, file);
        await chmod(file, publicMode());
      };
      await makeWholeFile(ctx, places.log, { fill, ...put });
    }
  } catch (error) {
    throw ctx.signal.aborted ? error : explainDelivery(error, places.path, builder.afterwards);
  }
  return { ...places, sha256: expected };
}

/** As any program makes a file that is there to be handed on. */
export function publicMode(): number {
  return 0o666 & ~process.umask();
}

/** Whether a file is there that has this checksum; one that can't be read is another one. */
async function hasSum(ctx: Context, path: string, expected: string): Promise<boolean> {
  if (!isTaken(path)) return false;
  try {
    return (await lstat(path)).isFile() && (await sha256Of(path, ctx.signal)) === expected;
  } catch (error) {
    if (ctx.signal.aborted) throw error;
    return false;
  }
}

/** @throws Failure `already-exists` that tells the ways on */
function refuseTaken(path: string, afterwards: readonly string[]): void {
  if (!isTaken(path)) return;
  const hint = 'move it away, name another folder with --output, or have it replaced with --overwrite';
  throw new Failure('already-exists', `there is something at ${path} already`, {
    hint: [`${hint}; then go on with --resume`, ...afterwards].join('\n'),
    data: { path },
  });
}

/** What is built is there still: whatever went wrong, the way on is told. */
function explainDelivery(error: unknown, path: string, afterwards: readonly string[]): Failure {
  const known = error instanceof Failure ? error : undefined;
  // A tar of this host tells in its own words.
  const full =
    hasCode(error, 'ENOSPC', 'EDQUOT') ||
    /No space left on device|Disk quota exceeded/.test([known?.message, known?.detail].join(' '));
  if (known?.reason === 'already-exists') return known;
  if (known && !full) {
    return new Failure(known.reason, `${path} is not there yet: ${known.message}`, {
      ...(known.detail === undefined ? {} : { detail: known.detail }),
      hint: [...(known.hint === undefined ? [] : [known.hint]), ...afterwards].join('\n'),
      data: known.data,
      cause: error,
    });
  }
  const reason = full ? 'no space left on device' : messageOf(error);
  return new Failure(full ? 'no-space' : 'files', `${path} can't be written: ${reason}`, {
    hint: [
      full
        ? 'make room there, or name another folder with --output; then go on with --resume'
        : 'name another folder with --output, and go on with --resume',
      ...afterwards,
    ].join('\n'),
    cause: error,
  });
}

/**
 * Makes the folder that the archive will go to, and looks whether anything can be written there: before a build rather than
 * after it. @throws Failure `files`, `usage`
 */
export async function checkOutput(output: string): Promise<void> {
  try {
    await mkdir(output, { recursive: true });
    await access(output, constants.W_OK | constants.X_OK);
    if (!(await stat(output)).isDirectory()) throw new Error('it is not a folder');
  } catch (error) {
    throw new Failure('files', `the archive can't go to ${output}: ${messageOf(error)}`, {
      hint: 'name another folder with --output',
      cause: error,
    });
  }
}

/**
 * Warns where the archive may not find room, before hours of compiling. No more than a warning: its size is an estimate, and
 * what is built is kept until there is room.
 * @param freeAt how many bytes are free at a path.
 */
export async function warnOfRoom(
  ctx: Pick<Context, 'emit'>,
  request: Pick<KernelRequest, 'config'>,
  output: string,
  freeAt = async (path: string): Promise<number> => (await filesystemOf(path)).free,
): Promise<void> {
  const needed = archiveSize(request);
  const free = await freeAt(output);
  if (free >= needed) return;
  const text = `${output} has ${formatBytes(free)} free, and the archive may take ${formatBytes(needed)}: make room while it is built`;
  ctx.emit({ type: 'notice', level: 'warning', text });
}

/** The most that an archive and its log take, in bytes, roughly. */
function archiveSize({ config }: Pick<KernelRequest, 'config'>): number {
  const large = 256 * MiB;
  if (config.kind === 'file') return large;
  return { tinyconfig: 32 * MiB, defconfig: 128 * MiB, 'debian-cloud': large }[config.name];
}

/** @throws Failure `files` unless the archive is what was packed, and has in it what it must */
async function verify(ctx: Context, path: string, expected: string): Promise<void> {
  const found = await sha256Of(path, ctx.signal);
  if (found !== expected) {
    throw new Failure(
      'files',
      `the archive that arrived is not the one that was packed: ${found} instead of ${expected}`,
      {
        hint: 'go on with --resume: it is copied again',
      },
    );
  }
  const { stdout } = await ctx.run(['tar', '--zstd', '-tf', path], {
    effect: 'read',
    deadline: 600_000,
    signal: ctx.signal,
  });
  const manifest = await ctx.run(['tar', '--zstd', '-xOf', path, 'manifest.json'], {
    effect: 'read',
    deadline: 600_000,
    signal: ctx.signal,
  });
  parseKernelManifest(manifest.stdout);
  const present = new Set(stdout.split('\n'));
  const missing = members.filter((member) => !present.has(member));
  if (missing.length > 0)
    throw new Failure('files', `the archive lacks ${missing.join(', ')}`, { hint: 'build it again' });
}
