import { statSync } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { actualSize } from '../host/files.ts';
import type { DiskFormat } from '../qemu/img.ts';
import { measureCopy } from '../qemu/img-convert.ts';
import { checkExport } from '../vm/admission.ts';
import { lookAtSource, writeCopy, type SourceImage } from './disk-copy.ts';
import { makeTarget, requireTarget } from './target-file.ts';

export interface ConvertFile {
  /** What the source is; by its content without. */
  readonly from?: DiskFormat;
  /** What the target becomes; by its name's ending without, and else what the source isn't. */
  readonly to?: DiskFormat;
  readonly overwrite: boolean;
  readonly overcommit: boolean;
}

/** A disk file that was written. */
export interface ConvertedFile {
  readonly path: string;
  readonly format: DiskFormat;
  /** What a guest sees, and blocks on the host, in bytes. */
  readonly virtual: number;
  readonly actual: number;
}

/**
 * Writes a disk file as one of another format, or of the same, that needs no other file. It is written beside, flushed, compared
 * with the source as a guest would read both, and only then takes its name. The source stays.
 * @throws Failure `already-exists`, `not-found`, `usage`, `no-space`, `wrong-state` for one that is in use, `files`, `process`,
 *   `deadline` if qemu-img gets nowhere, `interrupted`
 */
export async function convertFile(
  ctx: Context,
  sourcePath: string,
  targetPath: string,
  wanted: ConvertFile,
): Promise<ConvertedFile> {
  const source = lookAtSource(resolve(sourcePath), wanted.from);
  const path = resolve(targetPath);
  const format = wanted.to ?? formatByName(path) ?? (source.format === 'raw' ? 'qcow2' : 'raw');
  const target = { path, overwrite: wanted.overwrite };
  await requireTarget(ctx, target, source.path);
  sayWhatIsLeftOut(ctx, source);
  const claim = {
    what: `the copy of ${source.path}`,
    path: dirname(path),
    bound: await measureCopy(ctx, source, format),
  };
  await step(ctx.emit, 'budget', 'Checking the disk space of the worst case', () =>
    checkExport(ctx, claim, wanted.overcommit),
  );
  await makeTarget(ctx, target, (file) => writeCopy(ctx, source, { path: file, format }, `Writing ${path}`));
  return { path, format, virtual: virtualOf(source), actual: actualSize(path) };
}

/** By the endings that people give such files. */
function formatByName(path: string): DiskFormat | undefined {
  const ending = extname(path).toLowerCase();
  if (ending === '.qcow2') return 'qcow2';
  return ending === '.raw' || ending === '.img' ? 'raw' : undefined;
}

function sayWhatIsLeftOut(ctx: Context, { path, qcow2 }: SourceImage): void {
  const say = (text: string): void => ctx.emit({ type: 'notice', level: 'info', text });
  if (qcow2?.backing !== undefined) say(`the copy holds what ${path} has from ${qcow2.backing} too`);
  if (qcow2 && qcow2.snapshots.length > 0)
    say(`snapshots stay in ${path} alone: ${qcow2.snapshots.map(({ name }) => name).join(', ')}`);
}

function virtualOf({ path, qcow2 }: SourceImage): number {
  return qcow2?.virtual ?? statSync(path).size;
}
