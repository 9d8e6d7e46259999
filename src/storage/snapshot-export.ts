import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { actualSize, claimFile, exists, writeFileAtomically } from '../host/files.ts';
import { check } from '../qemu/img.ts';
import { exportSnapshot, measureSnapshot, sameAsSnapshot, type SnapshotPlace } from '../qemu/img-snapshot.ts';
import { checkExport } from '../vm/admission.ts';
import { withAdvice, type SnapshotDisk } from '../vm/snapshot-disks.ts';
import { readSnapshots, requireSnapshot, type Snapshot } from '../vm/snapshot-list.ts';
import { withMachine } from './snapshot-machine.ts';

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
 * @throws Failure `not-found`, `already-exists`, `no-space`, `files`, `process`, `interrupted`
 */
export async function exportSnapshots(
  ctx: Context,
  instance: InstanceName,
  name: string,
  wanted: ExportSnapshot,
): Promise<Exported[]> {
  return withMachine(ctx, instance, wanted.disks, async ({ disks, all }) => {
    const snapshot = requireSnapshot(instance, await readSnapshots(ctx, instance, all), name);
    const targets = await targetsOf(instance, snapshot, disks, wanted);
    const done: Exported[] = [];
    for (const { disk, place, target } of targets) {
      const { required } = await admitted(ctx, instance, place, target, wanted.overcommit);
      done.push({
        disk: disk.name,
        path: target,
        ...(await exportOne(ctx, instance, place, target, required)),
      });
    }
    return done;
  });
}

interface Target {
  readonly disk: SnapshotDisk;
  readonly place: SnapshotPlace;
  readonly target: string;
}

async function targetsOf(
  instance: InstanceName,
  snapshot: Snapshot,
  disks: readonly SnapshotDisk[],
  { disks: asked, output = '.', overwrite }: ExportSnapshot,
): Promise<Target[]> {
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
  const targets = places.map(({ disk, place }) => {
    const which = places.length > 1 ? `-${disk.name}` : '';
    const file = `${instance}-${safe(snapshot.name)}${which}.qcow2`;
    return { disk, place, target: resolve(isFolder ? join(output, file) : output) };
  });
  for (const { target } of targets) refuseTaken(target, overwrite);
  return targets;
}

/** A name of a file on any system, however strange the snapshot's. */
function safe(name: string): string {
  return name.replace(/[^\p{L}\p{N}._ -]+/gu, '-').slice(0, 60);
}

function refuseTaken(target: string, overwrite: boolean): void {
  if (!exists(dirname(target)))
    throw new Failure('not-found', `there is no folder ${dirname(target)}`, {
      hint: 'make it first, or name another',
    });
  if (overwrite || !exists(target)) return;
  throw new Failure('already-exists', `there is a file ${target} already`, {
    hint: '--output names another, --overwrite replaces it',
  });
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
  target: string,
  required: number,
): Promise<Pick<Exported, 'sha256' | 'actual'>> {
  const temporary = join(dirname(target), `.${randomBytes(6).toString('hex')}.part`);
  return withUndo(async (undo) => {
    await claimFile(temporary);
    undo.add('the half-made export', () => rm(temporary, { force: true }));
    await step(ctx.emit, 'export', `Writing ${target}`, (progress) =>
      write(ctx, place, temporary, (fraction) =>
        progress(`${Math.round(fraction * 100)} % of at most ${required} bytes`, fraction),
      ),
    );
    const sha256 = await step(ctx.emit, 'verify', 'Comparing it with the snapshot', async () => {
      await verify(ctx, instance, place, temporary);
      return digestAndFlush(temporary);
    });
    const list = `${target}.sha256`;
    // Never the sum of another file beside it.
    await rm(list, { force: true });
    await rename(temporary, target);
    await writeFileAtomically(list, `${sha256}  ${basename(target)}\n`);
    return { sha256, actual: actualSize(target) };
  });
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
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
    return hash.digest('hex');
  } catch (error) {
    throw new Failure('files', `${path} can't be read again: ${messageOf(error)}`, { cause: error });
  }
}
