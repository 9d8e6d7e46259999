import { realpath, rm } from 'node:fs/promises';
import { basename, dirname, relative } from 'node:path';
import * as v from 'valibot';
import { bytes, type Bytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { claimFile } from '../host/files.ts';
import type { RunOptions } from '../host/run.ts';
import { protocol } from './backing-name.ts';

/**
 * How overlays are laid out. Subclusters (`extended_l2`) are a 32nd of a cluster, so with 128k they are 4 KiB, a
 * guest's page: 2000 random 4 KiB writes (7.8 MiB) took 8.7 MiB of the host, 9.0 at 64k, 66 at 1M, and 124 at 64k
 * without subclusters.
 */
const layout = 'extended_l2=on,cluster_size=128k';

export type DiskFormat = 'qcow2' | 'raw';

/** What `qemu-img info` tells of a disk that zfsdev uses. */
export interface DiskInfo {
  readonly format: string;
  /** What the guest sees. */
  readonly virtual: Bytes;
  /** Blocks on the host. */
  readonly actual: Bytes;
  /** As the overlay names it: relative to the overlay's own folder, if relative. */
  readonly backing?: string;
  /** The backing file's path made whole. */
  readonly fullBacking?: string;
  readonly backingFormat?: string;
  readonly snapshots: readonly DiskSnapshot[];
  /** qcow2's own flag: it was found damaged, and QEMU only reads it. */
  readonly corrupt: boolean;
}

export interface DiskSnapshot {
  readonly id: string;
  readonly name: string;
  /** Memory saved with it; 0 for one of the disk alone. */
  readonly memory: Bytes;
  /** Milliseconds since 1970. */
  readonly date: number;
}

const infoSchema = v.object({
  format: v.string(),
  'virtual-size': v.number(),
  'actual-size': v.number(),
  'backing-filename': v.optional(v.string()),
  'full-backing-filename': v.optional(v.string()),
  'backing-filename-format': v.optional(v.string()),
  snapshots: v.optional(
    v.array(
      v.object({
        id: v.string(),
        name: v.string(),
        'vm-state-size': v.number(),
        'date-sec': v.number(),
        'date-nsec': v.number(),
      }),
    ),
    [],
  ),
  'format-specific': v.optional(
    v.object({ data: v.optional(v.object({ corrupt: v.optional(v.boolean()) })) }),
  ),
});
const measureSchema = v.object({ required: v.number(), 'fully-allocated': v.number() });
const checkSchema = v.object({
  'check-errors': v.number(),
  corruptions: v.optional(v.number(), 0),
  leaks: v.optional(v.number(), 0),
});

/**
 * Makes a qcow2 disk that stands on a backing file and takes the guest's writes; mode 0600.
 *
 * The backing file is named relative to the overlay, so that a state home can be moved, mounted elsewhere, or kept in
 * a CI cache; symbolic links are resolved first, since QEMU counts from where the overlay really lies.
 * @throws Failure `already-exists` if there is a file (nothing is overwritten), `not-found` if the backing file isn't
 *   there, `files`, `process` with qemu-img's words.
 */
export async function createOverlay(
  ctx: Context,
  disk: {
    readonly path: string;
    readonly backing: string;
    readonly backingFormat: DiskFormat;
    /** Virtual size. */
    readonly size: Bytes;
  },
): Promise<void> {
  const backing = await backingPath(disk.path, disk.backing);
  // qemu-img would make the file readable for all, and would overwrite one; it keeps the mode of an empty one.
  await claimFile(disk.path);
  try {
    await img(ctx, 'write', [
      'create',
      '-q',
      ...['-f', 'qcow2', '-o', layout],
      ...['-b', backing, '-F', disk.backingFormat],
      disk.path,
      String(disk.size),
    ]);
  } catch (error) {
    await rm(disk.path, { force: true });
    throw error;
  }
}

/** What is no path (`json:{...}`, `nbd://...`) stays as it is. */
async function backingName(overlay: string, backing: string): Promise<string> {
  return protocol.test(backing) ? backing : backingPath(overlay, backing);
}

async function backingPath(overlay: string, backing: string): Promise<string> {
  try {
    const [folder, target] = await Promise.all([realpath(dirname(overlay)), realpath(backing)]);
    const path = relative(folder, target);
    // QEMU takes "nbd:..." for a protocol; with a slash before the colon it is a file.
    return basename(path) === path ? `./${path}` : path;
  } catch (error) {
    const absent = hasCode(error, 'ENOENT', 'ENOTDIR');
    throw new Failure(
      absent ? 'not-found' : 'files',
      `the backing file ${backing} of ${overlay} can't be found: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/**
 * Looks at a disk, the machine running or not (`shared` keeps qemu-img from wanting the lock that the machine holds;
 * figures of a running machine may be a moment old).
 */
export async function info(
  ctx: Context,
  path: string,
  options: { readonly shared?: boolean } = {},
): Promise<DiskInfo> {
  const shared = options.shared === false ? [] : ['-U'];
  const found = await askJson(ctx, ['info', ...shared, '--output=json', path], infoSchema);
  return {
    format: found.format,
    virtual: bytes(found['virtual-size']),
    actual: bytes(found['actual-size']),
    ...(found['backing-filename'] === undefined ? {} : { backing: found['backing-filename'] }),
    ...(found['full-backing-filename'] === undefined ? {} : { fullBacking: found['full-backing-filename'] }),
    ...(found['backing-filename-format'] === undefined
      ? {}
      : { backingFormat: found['backing-filename-format'] }),
    snapshots: found.snapshots.map((snapshot) => ({
      id: snapshot.id,
      name: snapshot.name,
      memory: bytes(snapshot['vm-state-size']),
      date: snapshot['date-sec'] * 1000 + Math.floor(snapshot['date-nsec'] / 1e6),
    })),
    corrupt: found['format-specific']?.data?.corrupt ?? false,
  };
}

/** What a new overlay of this virtual size takes on the host: empty, and with each cluster written. */
export async function measure(
  ctx: Context,
  disk: { readonly size: Bytes },
): Promise<{ required: Bytes; fullyAllocated: Bytes }> {
  const found = await askJson(
    ctx,
    ['measure', '--output=json', '-O', 'qcow2', '-o', layout, '--size', String(disk.size)],
    measureSchema,
  );
  return { required: bytes(found.required), fullyAllocated: bytes(found['fully-allocated']) };
}

const mapSchema = v.array(
  v.object({ start: v.number(), length: v.number(), data: v.boolean(), depth: v.optional(v.number(), 0) }),
);

/**
 * Where a file has anything stored on the host: offset and length in bytes, ascending. What is left out reads as zeros,
 * and nothing of it has to be read to know that.
 */
export async function dataExtents(ctx: Context, path: string): Promise<[number, number][]> {
  // As raw: the blocks of the file itself are asked for, also of a qcow2.
  const found = await askJson(ctx, ['map', '-U', '--output=json', '-f', 'raw', path], mapSchema);
  return found.filter(({ data }) => data).map(({ start, length }) => [start, length]);
}

/**
 * How many bytes of its virtual size a disk holds data for, the machine running or not: in its own file, and in all that
 * it stands on together.
 */
export async function storedData(ctx: Context, path: string): Promise<{ own: number; visible: number }> {
  const found = await askJson(ctx, ['map', '-U', '--output=json', path], mapSchema);
  const data = found.filter((extent) => extent.data);
  const sum = (extents: typeof data): number => extents.reduce((total, { length }) => total + length, 0);
  return { own: sum(data.filter(({ depth }) => depth === 0)), visible: sum(data) };
}

export interface CheckResult {
  /** Clusters whose content can't be trusted. */
  readonly corruptions: number;
  /** Clusters that are taken and belong to nothing: room lost, no data. */
  readonly leaks: number;
  /** Things that could not be looked at. */
  readonly errors: number;
}

/** Checks the structure of a qcow2 disk of a stopped machine; what it finds is an answer, not a failure. */
export async function check(ctx: Context, path: string): Promise<CheckResult> {
  // 2: corruptions, 3: leaks; 1 is a check that failed itself, unless it tells what it found.
  const found = await askJson(ctx, ['check', '--output=json', path], checkSchema, [2, 3]);
  return { corruptions: found.corruptions, leaks: found.leaks, errors: found['check-errors'] };
}

/** Hours for a disk of hundreds of gigabytes, read or written in full; an interrupt ends it sooner. */
export const wholeDiskDeadline = 6 * 3_600_000;

/**
 * Writes what a qcow2 stores, and no more, compressed into an empty file (whose mode stays) that will stand on the same
 * backing file. Snapshots in it are left out.
 * @param options how the new one is laid out, as qemu-img's `-o` has it; as zfsdev lays out its own disks without
 */
export async function compactTo(
  ctx: Context,
  disk: string,
  target: string,
  options = `${layout},compression_type=zstd`,
): Promise<void> {
  const { fullBacking, backingFormat } = await info(ctx, disk);
  const backing =
    fullBacking === undefined
      ? []
      : ['-B', await backingName(target, fullBacking), '-F', backingFormat ?? 'qcow2'];
  await img(
    ctx,
    'write',
    [
      ...['convert', '-q', '-f', 'qcow2', '-O', 'qcow2', '-c', '-o', options],
      // Out of order and by many: compressing is what takes the time.
      ...['-W', '-m', '8'],
      ...backing,
      ...[disk, target],
    ],
    { deadline: wholeDiskDeadline, orphanSignal: 'KILL' },
  );
}

const deadline = 120_000;

/** Runs qemu-img. Every path is absolute: one without a slash before a colon would be taken for a protocol. */
export async function img(
  ctx: Context,
  effect: 'read' | 'write',
  args: readonly string[],
  options: Partial<Pick<RunOptions, 'accept' | 'deadline' | 'orphanSignal' | 'onLine'>> = {},
): Promise<string> {
  const { stdout } = await ctx.run(['qemu-img', ...args], {
    effect,
    deadline,
    signal: ctx.signal,
    ...options,
  });
  return stdout;
}

export async function askJson<T>(
  ctx: Context,
  args: readonly string[],
  schema: v.GenericSchema<unknown, T>,
  accept: readonly number[] = [],
): Promise<T> {
  const output = await img(ctx, 'read', args, { accept });
  const what = `qemu-img ${args[0] ?? ''}`;
  let input: unknown;
  try {
    input = JSON.parse(output);
  } catch (error) {
    throw new Failure('process', `${what} did not answer in JSON`, {
      detail: output.slice(0, 500),
      cause: error,
    });
  }
  const result = v.safeParse(schema, input);
  if (result.success) return result.output;
  const problems = result.issues.map((issue) => `${v.getDotPath(issue) ?? 'answer'}: ${issue.message}`);
  throw new Failure('process', `${what} answered in a form zfsdev does not know: ${problems.join('; ')}`);
}
