import { dirname } from 'node:path';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { flush } from '../host/files.ts';
import { check } from '../qemu/img.ts';
import { convert, sameImages, type ImageFile, type NewImage } from '../qemu/img-convert.ts';
import type { Qcow2 } from '../qemu/qcow2-header.ts';
import { readDisk } from '../qemu/qcow2.ts';
import { withAdvice } from '../vm/snapshot-disks.ts';

/** What a disk file is, by a look at it. */
export interface SourceImage extends ImageFile {
  /** Absent for a raw one. */
  readonly qcow2?: Qcow2;
}

/**
 * Looks at a file that is to be copied. Its format is what is said, and else what its content looks like.
 * @throws Failure `files` for what is no disk, or can't be trusted
 */
export function lookAtSource(path: string, format?: ImageFile['format']): SourceImage {
  const content = readDisk(path);
  if (format === 'raw' || (format === undefined && content.kind !== 'qcow2')) return { path, format: 'raw' };
  if (content.kind !== 'qcow2') {
    throw new Failure('files', `${path} is no qcow2`, { hint: '--from raw, if that is what it is' });
  }
  const { qcow2 } = content;
  const refuse = (why: string, hint: string): Failure => new Failure('files', `${path} ${why}`, { hint });
  if (qcow2.corrupt) throw withAdvice(path, refuse('is marked as corrupt by QEMU', ''));
  if (qcow2.external) throw refuse('keeps its data in another file', 'qemu-img convert takes both together');
  if (qcow2.encrypted) {
    const hint = 'zfsdev disk add INSTANCE NAME --file FILE --passphrase-file PASSPHRASE takes it as it is';
    throw refuse('is encrypted, and only whoever has its passphrase can read it', hint);
  }
  return { path, format: 'qcow2', qcow2 };
}

/**
 * Writes a copy into an empty file and flushes it to the disk of the host, once a guest would read the same from both.
 * @throws Failure `no-space`, `process`, `deadline` if qemu-img gets nowhere, `interrupted`
 */
export async function writeCopy(
  ctx: Context,
  source: ImageFile,
  target: NewImage,
  title: string,
): Promise<void> {
  await step(ctx.emit, 'convert', title, async (progress) => {
    try {
      await convert(ctx, source, target, (fraction) => progress(`${Math.round(fraction * 100)} %`, fraction));
    } catch (error) {
      throw told(source, target, error);
    }
  });
  await step(ctx.emit, 'verify', 'Comparing both', async () => {
    await flush(target.path);
    const sound = target.format === 'raw' || isSound(await check(ctx, target.path));
    if (sound && (await sameImages(ctx, source, target))) return;
    throw new Failure('process', `the copy of ${source.path} is not the same, and was thrown away`, {
      hint: 'was it being written to meanwhile? then try again',
    });
  });
}

function isSound({
  corruptions,
  errors,
}: {
  readonly corruptions: number;
  readonly errors: number;
}): boolean {
  return corruptions + errors === 0;
}

function told(source: ImageFile, target: NewImage, error: unknown): unknown {
  if (!(error instanceof Failure)) return error;
  const words = error.detail ?? '';
  if (/No space left on device|Disk quota exceeded/.test(words)) {
    const folder = dirname(target.path);
    return new Failure('no-space', `there was no room left in ${folder}; nothing of the copy stays`, {
      hint: `zfsdev usage tells what takes the room`,
      cause: error,
    });
  }
  if (/Failed to get .* lock/.test(words)) {
    return new Failure('wrong-state', `${source.path} is being written to, so a copy would be of no use`, {
      detail: words,
      hint: 'stop the machine that uses it: zfsdev list shows all',
      cause: error,
    });
  }
  return withAdvice(source.path, error);
}
