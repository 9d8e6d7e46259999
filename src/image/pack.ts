import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { exists, writeFileAtomically } from '../host/files.ts';
import { initrdArchive } from './initrd.ts';
import { publishImage } from './publish.ts';
import { imageFormat, type Recipe } from './recipe.ts';
import { builtOf, type Image, type ImageManifest } from './store.ts';
import type { Workplace } from './workplace.ts';

/** What the stages of one build share. */
export interface Stage {
  readonly ctx: Context;
  readonly recipe: Recipe;
  readonly work: Workplace;
  /** mmdebstrap's own choice if undefined. */
  readonly mirror: string | undefined;
  readonly logFile: string;
}

/**
 * Puts an image together from what both stages left in the workplace, and gives it its name.
 * @throws Failure `process`, `files`, `interrupted`, `deadline`.
 */
export async function pack(stage: Stage, undo: UndoStack): Promise<Image> {
  const { ctx, recipe, work } = stage;
  const { images } = ctx.paths;
  const building = join(images, `.building-${recipe.digest.slice(0, 12)}-${randomBytes(4).toString('hex')}`);
  const title = 'Packing the disk';
  const image = await step(ctx.emit, 'pack', title, async () => {
    undo.add('the unfinished image', () => rm(building, { recursive: true, force: true }));
    await mkdir(building, { mode: 0o700 });
    await convertDisk(stage, join(building, 'disk.qcow2'));
    await ctx.run(['tar', '-xzf', join(work.shared, 'kernel.tar.gz'), '-C', work.folder, 'zfsdev'], {
      effect: 'write',
      deadline: 120_000,
      signal: ctx.signal,
    });
    const kernelFile = kernelFileOf(stage);
    await copyFile(join(work.folder, 'zfsdev', kernelFile), join(building, kernelFile));
    await writeFileAtomically(join(building, 'initrd'), await initrdOf(stage));
    const manifest = await manifestOf(stage, kernelFile);
    await writeFileAtomically(join(building, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    const image = builtOf(await publishImage(images, building, recipe.digest));
    if (!image) throw new Error('the image that was just built is not whole');
    return image;
  });
  return image;
}

/** Unpacked, the kernel boots faster; beside a disk that boots by itself lies the very kernel that is on it. */
function kernelFileOf({ recipe, work }: Stage): ImageManifest['kernelFile'] {
  const unpacked = recipe.flavour !== 'cloud' && exists(join(work.folder, 'zfsdev/vmlinux'));
  return unpacked ? 'vmlinux' : 'vmlinuz';
}

async function initrdOf({ recipe, work }: Stage): Promise<Buffer> {
  // This one is on the disk too, so the hook has made it already.
  if (recipe.flavour === 'cloud') return readFile(join(work.shared, 'initrd'));
  const modules = await readFolder(join(work.folder, 'zfsdev/modules'));
  const init = recipe.files.find(({ path }) => path === 'init')?.content;
  if (!init) throw new Failure('files', 'provision/image/init is missing', { hint: 'install zfsdev again' });
  return initrdArchive({ init, busybox: await readFile(join(work.shared, 'busybox')), modules });
}

/**
 * 2 MiB clusters make the smallest compressed file; nothing is ever written to it, so their size harms nobody. But from
 * 2.1 on, Lima's machine writes into its copy of a cloud image, where each small write would take a whole cluster.
 */
async function convertDisk({ ctx, recipe, work }: Stage, target: string): Promise<void> {
  const layout = `compression_type=zstd,cluster_size=${recipe.flavour === 'cloud' ? '64k' : '2M'}`;
  await ctx.run(
    [
      'qemu-img',
      'convert',
      '-c',
      '-f',
      'raw',
      '-O',
      'qcow2',
      '-o',
      layout,
      join(work.shared, 'disk.raw'),
      target,
    ],
    { effect: 'write', deadline: 600_000, signal: ctx.signal },
  );
}

async function manifestOf(stage: Stage, kernelFile: ImageManifest['kernelFile']): Promise<ImageManifest> {
  const { recipe, work } = stage;
  const told = JSON.parse(await readFile(join(work.shared, 'image.json'), 'utf8')) as Record<string, unknown>;
  const names = ['debian', 'kernel', 'kernelPackage', 'openzfs', 'zfsutils', 'node', 'shares'];
  return {
    format: imageFormat,
    digest: recipe.digest,
    kernelDigest: recipe.kernelDigest,
    flavour: recipe.flavour,
    ...(recipe.tools ? { tools: true } : {}),
    suite: recipe.suite,
    architecture: recipe.architecture,
    createdAt: new Date().toISOString(),
    mirror: textOf(told['mirror']),
    kernelFile,
    versions: Object.fromEntries(names.map((name) => [name, textOf(told[name])])),
  };
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

async function readFolder(folder: string): Promise<Map<string, Buffer>> {
  const names = (await readdir(folder)).sort();
  return new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))] as const)),
  );
}
