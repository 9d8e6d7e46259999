import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { actualSize, flush } from '../host/files.ts';
import { check } from '../qemu/img.ts';
import { exportSnapshot, measureSnapshot, sameAsSnapshot, type SnapshotPlace } from '../qemu/img-snapshot.ts';
import { checkExport } from '../vm/admission.ts';
import { withAdvice, type SnapshotDisk } from '../vm/snapshot-disks.ts';
import { readSnapshots, requireSnapshot, type Snapshot } from '../vm/snapshot-list.ts';
import { withMachine } from './snapshot-machine.ts';
import { makeTarget, requireTarget, type TargetFile } from './target-file.ts';

export interface ExportSnapshot {
  readonly disks: readonly string[];
  /** A file, or a folder that is there; a file in the present folder without. */
  readonly output?: string;
  readonly overwrite: boolean;
  readonly overcommit: boolean;
}

/** One disk of a snapshot as a file that needs no other one. */
export interface Exported {
  readonly disk: string;
  readonly path: string;
  /** Hexadecimal; also beside it, as `sha256sum -c` reads it. */
  readonly sha256: string;
  /** Blocks on the host. */
  readonly actual: number;
}

/**
 * Writes the disks of a snapshot, each with all that it stands on, to compressed files of their own; the machine may run.
 * Each is written beside, its structure checked, compared with the snapshot as a guest would read both, and only then
 * takes its name.
 * @throws Failure `not-found`, `usage`, `already-exists` also for a file that a machine uses, `locked`, `no-space`, `files`, `process`, `interrupted`
 */
export async function exportSnapshots(
  ctx: Context,
  instance: InstanceName,
  name: string,
  wanted: ExportSnapshot,
): Promise<Exported[]> {
  return withMachine(ctx, instance, wanted.disks, async ({ disks, all }) => {
    const snapshot = requireSnapshot(instance, await readSnapshots(ctx, instance, all), name);
    const exports = await targetsOf(instance, snapshot, disks, wanted);
    for (const { place, target } of exports) {
      await requireTarget(ctx, target, place.path);
      await requireTarget(ctx, listOf(target), place.path);
    }
    const done: Exported[] = [];
    for (const { disk, place, target } of exports) {
      const { required } = await admitted(ctx, instance, place, target.path, wanted.overcommit);
      done.push({
        disk: disk.name,
        path: target.path,
        ...(await exportOne(ctx, instance, place, target, required)),
      });
    }
    return done;
  });
}

interface Export {
  readonly disk: SnapshotDisk;
  readonly place: SnapshotPlace;
  readonly target: TargetFile;
}

/** The file with the checksum, beside the export. */
function listOf({ path, overwrite }: TargetFile): TargetFile {
  return { path: `${path}.sha256`, overwrite };
}

async function targetsOf(
  instance: InstanceName,
  snapshot: Snapshot,
  disks: readonly SnapshotDisk[],
  { disks: asked, output = '.', overwrite }: ExportSnapshot,
): Promise<Export[]> {
  const places = disks.flatMap((disk) => {
    const part = snapshot.parts.find((each) => each.disk === disk.name);
    if (part) return [{ disk, place: { path: disk.path, id: part.id } }];
    if (asked.length === 0) return [];
    throw new Failure(
      'not-found',
      `the disk "${disk.name}" has no snapshot ${JSON.stringify(snapshot.name)}`,
      {
        hint: `zfsdev snapshot list ${instance} shows which disks have it`,
      },
    );
  });
  const encrypted = places.find(({ disk }) => disk.passphraseFile !== undefined);
  if (encrypted) {
    throw new Failure(
      'unsupported',
      `the disk "${encrypted.disk.name}" is encrypted, and an export would not be`,
      {
        hint: 'copy the file of a stopped machine instead; it stays encrypted',
      },
    );
  }
  const isFolder = output.endsWith('/') || (await stat(output).catch(() => undefined))?.isDirectory();
  if (!isFolder && places.length > 1)
    throw new Failure('usage', `${places.length} disks don't fit into one file`, {
      hint: `--output with a folder that is there, or --disk with one of: ${places.map(({ disk }) => disk.name).join(', ')}`,
    });
  return places.map(({ disk, place }) => {
    const which = places.length > 1 ? `-${disk.name}` : '';
    const file = `${instance}-${safe(snapshot.name)}${which}.qcow2`;
    return { disk, place, target: { path: resolve(isFolder ? join(output, file) : output), overwrite } };
  });
}

/** A name of a file on any system, however strange the snapshot's. */
function safe(name: string): string {
  return name.replace(/[^\p{L}\p{N}._ -]+/gu, '-').slice(0, 60);
}

async function admitted(
  ctx: Context,
  instance: InstanceName,
  place: SnapshotPlace,
  target: string,
  overcommit: boolean,
): Promise<{ required: number }> {
  const required = await measureSnapshot(ctx, place);
  const claim = { what: `the export of ${instance}`, path: dirname(target), bound: required };
  await step(ctx.emit, 'budget', 'Checking the disk space of the worst case', () =>
    checkExport(ctx, claim, overcommit),
  );
  return { required };
}

async function exportOne(
  ctx: Context,
  instance: InstanceName,
  place: SnapshotPlace,
  target: TargetFile,
  required: number,
): Promise<Pick<Exported, 'sha256' | 'actual'>> {
  const { path, overwrite } = target;
  const list = listOf(target);
  let sha256 = '';
  await makeTarget(ctx, target, async (file) => {
    await step(ctx.emit, 'export', `Writing ${path}`, (progress) =>
      write(ctx, place, file, (fraction) =>
        progress(`${Math.round(fraction * 100)} % of at most ${required} bytes`, fraction),
      ),
    );
    sha256 = await step(ctx.emit, 'verify', 'Comparing it with the snapshot', async () => {
      await verify(ctx, instance, place, file);
      return digestAndFlush(file);
    });
    // Never the sum of another file beside it.
    if (overwrite) await rm(list.path, { force: true });
  });
  await makeTarget(ctx, list, (file) => writeFile(file, `${sha256}  ${basename(path)}\n`));
  return { sha256, actual: actualSize(path) };
}

async function write(
  ctx: Context,
  place: SnapshotPlace,
  temporary: string,
  progress: (fraction: number) => void,
): Promise<void> {
  try {
    await exportSnapshot(ctx, place, temporary, progress);
  } catch (error) {
    if (!(error instanceof Failure) || !error.detail?.includes('No space left on device'))
      throw withAdvice(place.path, error);
    throw new Failure(
      'no-space',
      `there was no room left in ${dirname(temporary)}; nothing of the export stays`,
      {
        hint: '--output names another place',
        cause: error,
      },
    );
  }
}

async function verify(
  ctx: Context,
  instance: InstanceName,
  place: SnapshotPlace,
  temporary: string,
): Promise<void> {
  const { corruptions, errors } = await check(ctx, temporary);
  const socket = ctx.paths.instance(instance).nbd;
  if (corruptions + errors === 0 && (await sameAsSnapshot(ctx, place, temporary, socket))) return;
  throw new Failure('process', 'the export is not the same as the snapshot, and was thrown away', {
    hint: 'try again, and report it if it happens twice',
  });
}

/** What was checked is what is on the disk of the host, once this is through. */
async function digestAndFlush(path: string): Promise<string> {
  try {
    await flush(path);
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
    return hash.digest('hex');
  } catch (error) {
    throw new Failure('files', `${path} can't be read again: ${messageOf(error)}`, { cause: error });
  }
}
