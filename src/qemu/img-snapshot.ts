import { rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { bytes, type Bytes } from '../core/bytes.ts';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn, poll } from '../host/deadline.ts';
import { actualSize, exists } from '../host/files.ts';
import { runWatched } from '../host/watched.ts';
import { sameContent } from './compare.ts';
import { imageOptions } from './img-create.ts';
import { askJson } from './img.ts';
import { optionString } from './option-string.ts';
import { unlimited } from './stall.ts';

/** A process that was killed holds its files until all of its memory is gone: seconds, on a busy host. */
const lockPatience = 15_000;

/**
 * Runs a qemu-img that wants the disk for itself, once whoever is just ending has let go of it. It takes as long as its tables are
 * large and the disk is slow: seconds for terabytes, or much more.
 */
async function change(ctx: Context, args: readonly string[], accept: readonly number[] = []): Promise<void> {
  const deadline = deadlineIn(lockPatience);
  for (;;) {
    try {
      await runWatched(ctx, ['qemu-img', ...args], { effect: 'write', orphanSignal: 'TERM', accept });
      return;
    } catch (error) {
      const locked = error instanceof Failure && /Failed to get .* lock/.test(error.detail ?? '');
      if (!locked || deadline.left() === 0) throw error;
      await delay(100, undefined, { signal: ctx.signal }).catch(() => undefined);
    }
  }
}

/** A disk that qemu-img opens, and what it needs to. */
export interface OpenedDisk {
  readonly path: string;
  /** A file with its passphrase, if it is encrypted. */
  readonly passphraseFile?: string;
}

/** A disk whose freed clusters the host gets back, as a running machine has it. */
function opened({ path, passphraseFile }: OpenedDisk): string[] {
  return imageOptions(path, passphraseFile);
}

/** Takes a snapshot of a disk that nobody uses; a second one of the same name is another one. */
export async function createSnapshot(ctx: Context, disk: OpenedDisk, name: string): Promise<void> {
  const target = disk.passphraseFile === undefined ? [disk.path] : opened(disk);
  await change(ctx, ['snapshot', '-q', '-c', name, ...target]);
}

/** Takes a disk that nobody uses back to a snapshot, by its id: a name may be another one's id, and is looked up second. */
export async function applySnapshot(ctx: Context, disk: OpenedDisk, id: string): Promise<void> {
  await change(ctx, ['snapshot', '-q', '-a', id, ...opened(disk)]);
}

/** Deletes the oldest snapshot of this name from a disk that nobody uses. qemu-img looks only for names here. */
export async function deleteSnapshot(ctx: Context, disk: OpenedDisk, name: string): Promise<void> {
  await change(ctx, ['snapshot', '-q', '-d', name, ...opened(disk)]);
}

/** Frees clusters of a disk that nobody uses that belong to nothing: what a QEMU that was killed left behind. */
export async function repairLeaks(ctx: Context, disk: OpenedDisk): Promise<void> {
  await change(ctx, ['check', '-q', '-r', 'leaks', ...opened(disk)], [3]);
}

/** One snapshot in a disk file. */
export interface SnapshotPlace {
  readonly path: string;
  readonly id: string;
}

const measureSchema = v.object({ required: v.number() });

/** The most bytes that a copy of a snapshot takes with all that it stands on, the machine running or not. */
export async function measureSnapshot(ctx: Context, { path, id }: SnapshotPlace): Promise<Bytes> {
  const args = [
    'measure',
    '-U',
    '--output=json',
    '-f',
    'qcow2',
    '-O',
    'qcow2',
    '-l',
    `snapshot.id=${id}`,
    path,
  ];
  return bytes((await askJson(ctx, args, measureSchema)).required);
}

/**
 * Writes a snapshot with all that it stands on, compressed, into an empty file (whose mode stays). A snapshot's own clusters
 * never change while it is there, so the machine may run. Clusters are the largest there are: an export is read far more
 * often than written, and both compress and read several times as fast as in small ones.
 */
export async function exportSnapshot(
  ctx: Context,
  { path, id }: SnapshotPlace,
  target: string,
  progress: (fraction: number) => void,
): Promise<void> {
  const convert = (compression: 'zstd' | 'zlib'): Promise<unknown> =>
    runWatched(
      ctx,
      [
        ...([
          'qemu-img',
          'convert',
          '-U',
          '-p',
          '-f',
          'qcow2',
          '-O',
          'qcow2',
          '-l',
          `snapshot.id=${id}`,
        ] as const),
        ...['-c', '-o', `cluster_size=2M,compression_type=${compression}`, '-W', '-m', '8'],
        ...[path, target],
      ],
      {
        effect: 'write',
        orphanSignal: 'KILL',
        activity: () => actualSize(target),
        onLine: (line) => {
          const percent = /([\d.]+)\/100%/.exec(line)?.[1];
          if (percent !== undefined) progress(Number(percent) / 100);
        },
      },
    );
  try {
    await convert('zstd');
  } catch (error) {
    // A QEMU may be built without it.
    const refused = error instanceof Failure && error.detail?.includes('compression_type');
    if (!refused) throw error;
    await convert('zlib');
  }
}

/**
 * True if a guest would read the same from a copy as from the snapshot. Only qemu-nbd can show a snapshot's content to
 * another program, so it serves it on `socket` meanwhile.
 */
export async function sameAsSnapshot(
  ctx: Context,
  { path, id }: SnapshotPlace,
  copy: string,
  socket: string,
): Promise<boolean> {
  await rm(socket, { force: true });
  const done = new AbortController();
  const signal = AbortSignal.any([ctx.signal, done.signal]);
  const image = { 'force-share': true, 'file.driver': 'file', 'file.filename': path };
  const serving = ctx.run(
    [
      ...(['qemu-nbd', '-r', '-k', socket, '-l', `snapshot.id=${id}`, '--image-opts'] as const),
      optionString('driver=qcow2', image),
    ],
    // The one who compares is watched.
    { effect: 'read', ...unlimited, signal, orphanSignal: 'KILL' },
  );
  let failed: Error | undefined;
  serving.catch((error: Error) => (failed = error));
  try {
    await poll('qemu-nbd', () => Promise.resolve(failed !== undefined || exists(socket) || undefined), {
      deadline: deadlineIn(60_000),
      signal: ctx.signal,
    });
    if (failed !== undefined) throw failed;
    return await sameContent(ctx, ['-f', 'raw', '-F', 'qcow2', nbd(socket), copy]);
  } catch (error) {
    if (failed !== undefined && error !== failed && error instanceof Failure && error.reason === 'process')
      throw new Failure('process', `${error.message} (${messageOf(failed)})`, { cause: error });
    throw error;
  } finally {
    done.abort();
    await serving.catch(() => undefined);
    await rm(socket, { force: true });
  }
}

function nbd(socket: string): string {
  return `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
}
