import { createHash } from 'node:crypto';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../core/bytes.ts';
import { step } from '../core/events.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { exists, makePrivateFolder } from '../host/files.ts';
import { findPackageRoot } from '../host/package-root.ts';
import { mmdebstrap } from './bootstrap.ts';
import { checkPrograms, imageLock, moveAcross } from './build.ts';
import { explainBuild } from './diagnose.ts';
import { chooseMirror } from './mirror.ts';
import { buildTools, debianArchitecture, type Suite } from './recipe.ts';
import { kernelFolder } from './store.ts';
import { checkPermissions, makeWorkplace } from './workplace.ts';

/** Beside what provision/build-tools.sh installs: a cache of what was compiled. */
const furtherPackages = ['ccache'];

/** What the packed root takes, and it unpacked: measured 160 MiB and 0.5 GiB. */
export const toolchainSize = { packed: 250 * MiB, unpacked: 700 * MiB };

/**
 * A Debian root file system with all that a kernel build needs, as a tar.zst: made once for each list of packages, and
 * kept where `image prune` finds it. Gives its path.
 * @throws Failure `image` (with the log's tail), `dependency`, `unsupported`, `interrupted`, `deadline`, `files`.
 */
export async function ensureToolchain(ctx: Context, suite: Suite, mirror?: string): Promise<string> {
  const { images } = ctx.paths;
  const { packages, architecture, target } = await toolchainOf(images, suite);
  if (exists(target)) return target;
  checkPermissions();
  await checkPrograms(ctx);
  const held = await imageLock(ctx);
  try {
    if (exists(target)) return target;
    await makePrivateFolder(kernelFolder(images));
    await step(ctx.emit, 'tools', 'Fetching the compiler and its tools', (progress) =>
      make(ctx, { suite, architecture, packages, mirror, target }, progress),
    );
    return target;
  } finally {
    await held.release();
  }
}

/** What the toolchain of a suite has in it, and the file that it is packed into. */
export async function toolchainOf(
  images: string,
  suite: Suite,
): Promise<Pick<Wanted, 'packages' | 'architecture' | 'target'>> {
  const packages = [...(await buildTools(join(findPackageRoot(), 'provision'))), ...furtherPackages];
  const architecture = debianArchitecture();
  const digest = createHash('sha256').update(JSON.stringify({ suite, architecture, packages })).digest('hex');
  return { packages, architecture, target: join(kernelFolder(images), `tools-${digest}.tar.zst`) };
}

interface Wanted {
  readonly suite: Suite;
  readonly architecture: string;
  readonly packages: readonly string[];
  readonly mirror: string | undefined;
  readonly target: string;
}

async function make(ctx: Context, wanted: Wanted, progress: (text: string) => void): Promise<void> {
  const { suite, architecture, packages, target } = wanted;
  await withUndo(async (undo) => {
    const work = await makeWorkplace(ctx);
    undo.add('the working folder', () => work.remove());
    const mirror = await chooseMirror(ctx, suite, wanted.mirror, work.folder);
    const logFile = join(ctx.paths.images, 'build-tools.log');
    await writeFile(logFile, '');
    const local = join(work.shared, 'tools.tar.zst');
    try {
      const components = ['main', 'contrib'];
      const bootstrap = { suite, architecture, components, packages, mirror, target: local };
      await mmdebstrap(ctx, bootstrap, { temporary: work.shared, logFile, progress });
    } catch (error) {
      throw explainBuild(error, logFile);
    }
    await moveAcross(local, target);
    await work.remove();
  });
}

/**
 * Unpacks the toolchain into a folder, which becomes the root file system of a build. Everything in it belongs to whoever
 * calls: there is one user in there.
 * @throws Failure `process` (the archive is damaged: `zfsdev image prune` removes it), `interrupted`
 */
export async function unpackToolchain(ctx: Context, archive: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755);
  // No devices: the host's are mounted over them.
  await ctx.run(['tar', '--zstd', '--no-same-owner', '--exclude=./dev/*', '-C', folder, '-xpf', archive], {
    effect: 'write',
    deadline: 600_000,
    signal: ctx.signal,
    orphanSignal: 'KILL',
  });
}
