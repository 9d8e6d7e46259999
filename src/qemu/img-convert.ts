import * as v from 'valibot';
import type { Bytes } from '../core/bytes.ts';
import type { Context } from '../host/context.ts';
import { actualSize } from '../host/files.ts';
import { runWatched } from '../host/watched.ts';
import { sameContent } from './compare.ts';
import { layoutOptions, type NewQcow2 } from './img-create.ts';
import { askJson, type DiskFormat } from './img.ts';
import { optionString } from './option-string.ts';

/** A disk file, and what it takes to open it. */
export interface ImageFile {
  readonly path: string;
  readonly format: DiskFormat;
  /** A file with the passphrase of one that is encrypted by LUKS. */
  readonly passphraseFile?: string | undefined;
}

/** How a copy is to be. */
export interface NewImage extends ImageFile, Pick<NewQcow2, 'clusterSize' | 'compression'> {}

/** What names a passphrase to qemu-img by its file; `id` is what the disk refers to it by. */
function secret(id: string, { passphraseFile }: ImageFile): string[] {
  if (passphraseFile === undefined) return [];
  return ['--object', optionString('secret', { id, file: passphraseFile })];
}

/** A disk as `--image-opts` has it: of the format that it is said to have, whatever its content looks like. */
export function imageOf(file: ImageFile, id = 'passphrase'): string {
  const options = { 'file.driver': 'file', 'file.filename': file.path };
  const key = file.passphraseFile === undefined ? {} : { 'encrypt.key-secret': id };
  return optionString(`driver=${file.format}`, { ...options, ...key });
}

const measureSchema = v.object({ required: v.number() });
const mapSchema = v.array(v.object({ length: v.number(), data: v.boolean() }));

/** The most bytes that a copy takes on the host, with all that the source stands on. */
export async function measureCopy(ctx: Context, source: ImageFile, format: DiskFormat): Promise<number> {
  const image = [...secret('passphrase', source), '--image-opts', imageOf(source)];
  if (format === 'qcow2')
    return (await askJson(ctx, ['measure', '--output=json', '-O', 'qcow2', ...image], measureSchema))
      .required;
  // Of a raw file, holes are left holes: only what holds data is written.
  const map = await askJson(ctx, ['map', '--output=json', ...image], mapSchema);
  return map.filter(({ data }) => data).reduce((sum, { length }) => sum + length, 0);
}

/**
 * Writes a disk, with all that it stands on, into an empty file (whose mode stays); snapshots are left out, and what is zeros is
 * left a hole. It takes as long as it takes: only a qemu-img that gets nowhere is given up.
 * @throws Failure `process` in qemu-img's words, `deadline`, `interrupted`
 */
export async function convert(
  ctx: Context,
  source: ImageFile,
  target: NewImage,
  progress: (fraction: number) => void,
): Promise<void> {
  const layout =
    target.format === 'raw'
      ? []
      : ['-o', layoutOptions(target).replace('key-secret=passphrase', 'key-secret=new')];
  await runWatched(
    ctx,
    [
      ...(['qemu-img', 'convert', '-p'] as const),
      ...[...secret('passphrase', source), ...secret('new', target)],
      ...['--image-opts', '-O', target.format, ...layout, imageOf(source), target.path],
    ],
    {
      effect: 'write',
      orphanSignal: 'KILL',
      activity: () => actualSize(target.path),
      onLine: (line) => {
        const percent = /([\d.]+)\/100%/.exec(line)?.[1];
        if (percent !== undefined) progress(Number(percent) / 100);
      },
    },
  );
}

/** True if a guest would read the same from both; beyond the end of the shorter one, zeros. */
export function sameImages(ctx: Context, a: ImageFile, b: ImageFile): Promise<boolean> {
  const words = [...secret('first', a), ...secret('second', b), '--image-opts'];
  return sameContent(ctx, [...words, imageOf(a, 'first'), imageOf(b, 'second')]);
}

/** Grows a disk that nobody uses; snapshots in it keep their size. @throws Failure `process` in qemu-img's words */
export async function resizeImage(ctx: Context, file: ImageFile, size: Bytes): Promise<void> {
  await runWatched(
    ctx,
    ['qemu-img', 'resize', '-q', ...secret('passphrase', file), '--image-opts', imageOf(file), String(size)],
    { effect: 'write', orphanSignal: 'TERM' },
  );
}
