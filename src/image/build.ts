import { chmod, copyFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { withUndo, type UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { exists, flush, makePrivateFolder } from '../host/files.ts';
import { lockWaiting, type Lock } from '../host/lock.ts';
import { keyring, mmdebstrap } from './bootstrap.ts';
import { explainBuild } from './diagnose.ts';
import { chooseMirror } from './mirror.ts';
import { pack, type Stage } from './pack.ts';
import { imageFormat, type Recipe } from './recipe.ts';
import { builtOf, inspectImage, kernelArchive, kernelFolder, type Image } from './store.ts';
import { checkPermissions, isRoot, layOut, makeWorkplace } from './workplace.ts';

export interface BuildOptions {
  /** Address of a Debian mirror; the host's own, or the one that mmdebstrap takes, if left out. */
  readonly mirror?: string | undefined;
  /** Builds again although the image is there; newer packages come in. */
  readonly rebuild?: boolean;
  /** Who stands on an image, by its digest: one that somebody stands on is never replaced, whole or not. */
  readonly users?: (digest: string) => Promise<readonly string[]>;
}

/** The image of a recipe if it is there and whole. */
export async function findImage(ctx: Context, recipe: Recipe): Promise<Image | undefined> {
  return builtOf(await inspectImage(ctx.paths.images, recipe.digest));
}

/** Held while images are built, pulled or pruned. Waits for its present holder. @throws Failure `interrupted`. */
export function imageLock(ctx: Context): Promise<Lock> {
  return lockWaiting(ctx.paths.lock('images'), ctx.signal);
}

/**
 * Gives the image of a recipe; builds it if it isn't there. What was begun is undone on failure and interrupt.
 * @throws Failure `image` (with the log's tail), `dependency`, `wrong-state` (another image under an instance),
 *   `unsupported`, `interrupted`, `deadline`, `files`.
 */
export async function ensureImage(ctx: Context, recipe: Recipe, options: BuildOptions = {}): Promise<Image> {
  const present = await findImage(ctx, recipe);
  if (present && !options.rebuild) return present;
  await refuseToReplace(ctx, recipe, options);
  checkPermissions();
  await checkPrograms(ctx);
  const lock = await imageLock(ctx);
  try {
    // Another process may have built it while this one waited.
    const built = await findImage(ctx, recipe);
    if (built && !options.rebuild) return built;
    await refuseToReplace(ctx, recipe, options);
    return await withUndo((undo) => build(ctx, recipe, options, undo));
  } finally {
    await lock.release();
  }
}

/** What stands on one disk is of no use on another, and no two builds of a recipe give the same. @throws Failure `wrong-state` */
async function refuseToReplace(ctx: Context, { digest }: Recipe, { users }: BuildOptions): Promise<void> {
  const old = await inspectImage(ctx.paths.images, digest);
  const names = old && users ? await users(digest) : [];
  if (names.length === 0) return;
  const reason = old?.state === 'broken' ? ` though it is broken (${old.reason})` : '';
  throw new Failure('wrong-state', `instances stand on this image, so it can not be replaced${reason}`, {
    detail: `on ${digest.slice(0, 12)} ${names.length === 1 ? 'stands' : 'stand'} ${names.join(', ')}`,
    hint: 'zfsdev list shows them; zfsdev delete NAME removes one, zfsdev warm prune the warm states that nobody needs',
    data: { digest, users: names },
  });
}

async function build(ctx: Context, recipe: Recipe, options: BuildOptions, undo: UndoStack): Promise<Image> {
  await makePrivateFolder(kernelFolder(ctx.paths.images));
  const work = await makeWorkplace(ctx);
  undo.add('the working folder', () => work.remove());
  const logFile = join(ctx.paths.images, `build-${recipe.digest.slice(0, 12)}.log`);
  await rm(logFile, { force: true });
  try {
    const mirror = await chooseMirror(ctx, recipe.suite, options.mirror, work.folder);
    const stage = { ctx, recipe, work, mirror, logFile };
    await layOut(work.shared, recipe, {
      FLAVOUR: recipe.kernelFlavour,
      IMAGE_FLAVOUR: recipe.flavour,
      SUITE: recipe.suite,
      COMPONENTS: recipe.components.join(' '),
      FORMAT_VERSION: String(imageFormat),
      BUILD_PACKAGES: recipe.buildPackages.join(' '),
    });
    await kernelStage(stage, options.rebuild ?? false);
    await runtimeStage(stage);
    const image = await pack(stage, undo);
    await work.remove();
    await rm(logFile, { force: true });
    return image;
  } catch (error) {
    if (error instanceof Failure && error.reason === 'interrupted') await rm(logFile, { force: true });
    throw explainBuild(error, logFile);
  }
}

/** Leaves kernel.tar.gz for the hooks of the next stage; from the cache if it was made before. */
async function kernelStage(stage: Stage, rebuild: boolean): Promise<void> {
  const { ctx, recipe, work } = stage;
  const cached = kernelArchive(ctx.paths.images, recipe.kernelDigest);
  const local = join(work.shared, 'kernel.tar.gz');
  if (rebuild || !exists(cached)) {
    const what = recipe.kernelFlavour === 'zfs' ? 'Compiling the ZFS module' : 'Making the kernel ready';
    await step(ctx.emit, 'module', what, (progress) =>
      bootstrap(stage, recipe.kernelPackages, 'kernel-hook.sh', progress),
    );
    await moveAcross(local, cached);
  }
  // A copy rather than a link: the namespace's root could not read what is the user's alone.
  await copyFile(cached, local);
  await chmod(local, 0o644);
}

async function runtimeStage(stage: Stage): Promise<void> {
  await step(stage.ctx.emit, 'packages', 'Installing the guest', (progress) =>
    bootstrap(stage, [...stage.recipe.packages, ...stage.recipe.buildPackages], 'root-hook.sh', progress),
  );
}

async function bootstrap(
  { ctx, recipe, work, mirror, logFile }: Stage,
  packages: readonly string[],
  hook: string,
  progress: (text: string) => void,
): Promise<void> {
  await mmdebstrap(
    ctx,
    { ...recipe, packages, mirror, target: '/dev/null' },
    {
      words: [
        '--format=null',
        '--dpkgopt=path-include=/usr/share/doc/*/copyright',
        `--customize-hook=${join(work.shared, hook)}`,
      ],
      temporary: work.shared,
      logFile,
      progress,
    },
  );
}

/** Programs and files of the host that a build needs, asked before anything is downloaded. */
export async function checkPrograms(ctx: Context): Promise<void> {
  const programs = [
    ['mmdebstrap', '--version'],
    ['mke2fs', '-V'],
    ['qemu-img', '--version'],
  ] as const;
  const needed = isRoot() ? programs : [...programs, ['newuidmap', '--help'] as const];
  for (const argv of needed) {
    // newuidmap has no harmless call that succeeds; that it can be run is the answer.
    await ctx.run(argv, { effect: 'read', deadline: 30_000, signal: ctx.signal, accept: [1, 2] });
  }
  if (!exists(keyring)) {
    throw new Failure('dependency', `${keyring} is missing: packages could not be checked`, {
      hint: 'sudo apt-get install --no-install-recommends debian-archive-keyring\n(or: zfsdev doctor --fix)',
    });
  }
}

/** Copies a file beside its target and renames it there: the two may be on different filesystems. */
export async function moveAcross(from: string, target: string): Promise<void> {
  const part = `${target}.part`;
  try {
    await copyFile(from, part);
    await flush(part);
    await rename(part, target);
    await rm(from);
  } catch (error) {
    await rm(part, { force: true });
    throw new Failure('files', `${target} can't be written: ${messageOf(error)}`, {
      hint: hasCode(error, 'ENOSPC', 'EDQUOT')
        ? 'zfsdev image prune, then try again'
        : 'check its permissions',
      cause: error,
    });
  }
}
