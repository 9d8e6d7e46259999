import { rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { actualSize, exists, flush } from '../host/files.ts';
import { compactedFile } from '../host/paths.ts';
import { leadsTo } from '../host/system-folders.ts';
import { compare } from '../qemu/compare.ts';
import { layoutOptions } from '../qemu/img-create.ts';
import { check, compactTo } from '../qemu/img.ts';
import { reserveCopy } from '../vm/admission.ts';
import { machineFiles, mainDisk } from '../vm/machine-files.ts';
import type { Instance } from '../vm/instance.ts';
import { withInstanceLock } from '../vm/lifecycle.ts';
import { requireInstance } from '../vm/store.ts';
import { lookAtDisk, type DiskUsage } from './disk.ts';

/** What giving back space came to: blocks on the host before and after, in bytes. */
export interface Reclaimed {
  readonly name: string;
  readonly before: number;
  readonly after: number;
}

export interface CompactOptions {
  readonly dropSnapshots: boolean;
  /** Go on although the copy might not fit beside the worst case of everything. */
  readonly overcommit: boolean;
}

/**
 * Writes the disk of a stopped instance anew, compressed, without what no longer belongs to anything in it. The new file
 * is compared with the old one, cluster by cluster as the guest would read them, before it takes its place at once:
 * whenever this is cut off, one of them is there, whole. A new one that takes no less is thrown away.
 * @throws Failure `wrong-state` while it runs, or for snapshots that would be lost; `no-space` before it begins, or when
 *   the host's disk fills up on the way; `files` if the disk is damaged; `process`, `interrupted`.
 */
export async function compactDisk(
  ctx: Context,
  name: InstanceName,
  options: CompactOptions,
): Promise<Reclaimed> {
  await requireInstance(ctx, name);
  return withInstanceLock(ctx, name, async () => {
    const disks = await disksToCompact(ctx, await stoppedInstance(ctx, name));
    const sound: [Compactable, DiskUsage][] = [];
    for (const disk of disks) {
      // What a killed compaction left: whoever made it held this lock.
      await rm(compactedFile(disk.path), { force: true });
      sound.push([disk, await soundDisk(ctx, name, disk, options)]);
    }
    for (const [disk, found] of sound) await compactOne(ctx, name, disk, found, options);
    const sum = (size: (disk: Compactable, found: DiskUsage) => number): number =>
      sound.reduce((total, [disk, found]) => total + size(disk, found), 0);
    return {
      name,
      before: sum((_, { actual }) => actual),
      after: sum(({ path }) => actualSize(path)),
    };
  });
}

/** A disk that can be written anew, and how. */
interface Compactable {
  /** As it is called in what is told: `the disk of one`. */
  readonly what: string;
  /** Where it really lies: a link to a disk stays a link to it. */
  readonly path: string;
  readonly layout?: string;
}

/** The disk with the root file system, and those of its storage that a copy of its own could take the place of. */
async function disksToCompact(ctx: Context, instance: Instance): Promise<Compactable[]> {
  const { name } = instance;
  const { storage } = await machineFiles(ctx, name, instance);
  const further = storage.filter(({ disk, path }) => {
    if (disk.type !== 'qcow2' || disk.readonly || !exists(path)) return false;
    if (disk.format?.passphraseFile === undefined) return true;
    const text = `the disk "${disk.name}" of ${name} stays as it is: what is encrypted can't be compressed`;
    ctx.emit({ type: 'notice', level: 'info', text });
    return false;
  });
  return [
    { what: `the disk of "${name}"`, path: leadsTo(await mainDisk(ctx, instance)) },
    ...further.map(({ disk, path }) => ({
      what: `the disk "${disk.name}" of "${name}"`,
      path: leadsTo(path),
      layout: layoutOptions({ ...disk.format, compression: disk.format?.compression ?? 'zstd' }),
    })),
  ];
}

async function compactOne(
  ctx: Context,
  name: InstanceName,
  { what, path, layout }: Compactable,
  disk: DiskUsage,
  { overcommit }: CompactOptions,
): Promise<void> {
  const compacted = compactedFile(path);
  await withUndo(async (undo) => {
    undo.add('the half-made disk', () => rm(compacted, { force: true }));
    await reserveCopy(ctx, name, path, overcommit);
    await step(ctx.emit, 'compact', `Writing ${what} anew`, () =>
      writeAnew(ctx, name, disk, compacted, layout),
    );
    await step(ctx.emit, 'verify', 'Comparing it with the old one', () => verify(ctx, path, compacted));
    if (disk.snapshots === 0 && actualSize(compacted) >= disk.actual) {
      await rm(compacted, { force: true });
      return;
    }
    await flush(compacted);
    await rename(compacted, path);
    await flush(dirname(path));
  });
}

async function writeAnew(
  ctx: Context,
  name: InstanceName,
  disk: DiskUsage,
  target: string,
  layout: string | undefined,
): Promise<void> {
  try {
    await compactTo(ctx, disk.path, target, layout);
  } catch (error) {
    if (!(error instanceof Failure) || !error.detail?.includes('No space left on device')) throw error;
    throw new Failure(
      'no-space',
      `the host's disk was full before the disk of "${name}" was written anew; the old one stays`,
      {
        hint: `zfsdev usage tells what takes the room; zfsdev start ${name} && zfsdev clean ${name} needs none`,
        cause: error,
      },
    );
  }
}

async function stoppedInstance(ctx: Context, name: InstanceName): Promise<Instance> {
  const found = await requireInstance(ctx, name, { lockIsOurs: true });
  if (found.status === 'stopped') return found.instance;
  if (found.status === 'broken') {
    throw new Failure('wrong-state', `"${name}" is broken: ${found.reason}`, {
      hint: `zfsdev inspect ${name}`,
    });
  }
  throw new Failure(
    'wrong-state',
    `"${name}" is running, and only the disk of a stopped one can be written anew`,
    { hint: `zfsdev stop ${name} && zfsdev compact ${name}\nor, while it runs: zfsdev trim ${name}` },
  );
}

/** The disk, if it can be trusted and nothing in it would be lost. */
async function soundDisk(
  ctx: Context,
  name: InstanceName,
  { what, path }: Compactable,
  { dropSnapshots }: CompactOptions,
): Promise<DiskUsage> {
  const disk = await lookAtDisk(path);
  if (disk.problem !== undefined || disk.kind !== 'qcow2') {
    throw new Failure('files', `${what} can't be compacted: ${disk.problem ?? 'it is not a qcow2'}`, {
      hint: `zfsdev inspect ${name}`,
    });
  }
  if (disk.snapshots > 0 && !dropSnapshots) {
    throw new Failure('wrong-state', `${what} has ${disk.snapshots} snapshots, which would be lost`, {
      hint: `zfsdev compact ${name} --drop-snapshots`,
    });
  }
  const { corruptions, errors } = await check(ctx, path);
  if (corruptions + errors > 0) {
    throw new Failure('files', `${what} is damaged: qemu-img check finds ${corruptions + errors} faults`, {
      hint: `qemu-img check ${path}`,
    });
  }
  return disk;
}

async function verify(ctx: Context, old: string, made: string): Promise<void> {
  const { corruptions, errors } = await check(ctx, made);
  if (corruptions + errors > 0 || !(await compare(ctx, old, made))) {
    throw new Failure('process', 'the new disk is not the same as the old one, which stays', {
      hint: 'try again, and report it if it happens twice',
    });
  }
}
