import { randomBytes } from 'node:crypto';
import { chmod, lstat, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { readIfExists } from '../host/files.ts';
import { identify, isAlive, type ProcessIdentity } from '../host/process-identity.ts';
import type { Recipe } from './recipe.ts';

/**
 * Where a build works. In an unprivileged build the hooks run as the root of a user namespace, who is nobody to this
 * user's folders: so everything they read or write lies in a folder that all may enter, below one that nobody else can
 * list, under a name that nobody else can guess.
 */
export interface Workplace {
  /** The user's own. */
  readonly folder: string;
  /** The one the hooks see, sticky and open to all who know its name. */
  readonly shared: string;
  remove(): Promise<void>;
}

const prefix = 'zfsdev-image-';
/** Tells which process works in a folder. */
const ownerFile = 'owner.json';

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/**
 * Makes a workplace in TMPDIR, or /var/tmp: the toolchain needs a gigabyte, and /tmp is memory on many hosts.
 * @throws Failure `files` if it can't be made.
 */
export async function makeWorkplace(ctx: Context): Promise<Workplace> {
  const parent = temporaryFolder(ctx.env);
  await sweep(ctx, parent);
  try {
    const folder = await mkdtemp(join(parent, prefix));
    await writeFile(join(folder, ownerFile), JSON.stringify(await identify(ctx.run, process.pid)));
    await chmod(folder, 0o711);
    const shared = join(folder, randomBytes(12).toString('hex'));
    await mkdir(shared);
    await chmod(shared, 0o1777);
    return { folder, shared, remove: () => removeWorkplace(ctx, folder, shared) };
  } catch (error) {
    throw new Failure('files', `no working folder can be made in ${parent}: ${messageOf(error)}`, {
      hint: hasCode(error, 'ENOSPC')
        ? 'make room there, or set TMPDIR to a folder with 2 GiB free'
        : 'set TMPDIR',
      cause: error,
    });
  }
}

/** Removes the workplaces of this user's builds that were killed: those whose process is gone. */
async function sweep(ctx: Context, parent: string): Promise<void> {
  const names = (await readdir(parent).catch(() => [])).filter((name) => name.startsWith(prefix));
  for (const folder of names.map((name) => join(parent, name))) {
    const { uid } = await lstat(folder).catch(() => ({ uid: -1 }));
    if (uid !== process.getuid?.()) continue;
    const owner = parseOwner(readIfExists(join(folder, ownerFile)));
    if (!owner || (await isAlive(ctx.run, owner))) continue;
    const inner = await readdir(folder, { withFileTypes: true });
    const shared = inner.find((entry) => entry.isDirectory())?.name ?? '';
    await removeWorkplace(ctx, folder, join(folder, shared));
  }
}

function parseOwner(text: string | undefined): ProcessIdentity | undefined {
  try {
    const found = JSON.parse(text ?? 'null') as Partial<ProcessIdentity> | null;
    const { pid, started } = found ?? {};
    return typeof pid === 'number' && typeof started === 'string' ? { pid, started } : undefined;
  } catch {
    // Cut off while it was written: whose it is can't be told, so it stays.
    return undefined;
  }
}

/** Where builds put what they throw away. */
export function temporaryFolder(env: Readonly<NodeJS.ProcessEnv>): string {
  return env['TMPDIR'] ?? '/var/tmp';
}

/** Files of the namespace's users can only be removed as those: mmdebstrap has a way in. */
async function removeWorkplace(ctx: Context, folder: string, shared: string): Promise<void> {
  if (!isRoot()) {
    const left = (await readdir(shared).catch(() => [])).filter((name) => name.startsWith('mmdebstrap.'));
    if (left.length > 0) {
      const paths = left.map((name) => join(shared, name));
      // No signal: this is the tidying up after one. Its failure shows in the removal below.
      const options = { effect: 'write', deadline: 120_000 } as const;
      await ctx
        .run(['mmdebstrap', '--unshare-helper', 'rm', '-rf', '--', ...paths], options)
        .catch(() => undefined);
    }
  }
  await rm(folder, { recursive: true, force: true });
}

/** Lays out a recipe's files for the hooks, with their settings. */
export async function layOut(
  shared: string,
  recipe: Recipe,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  for (const { path, content, executable } of recipe.files) {
    const target = join(shared, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
    // The umask must not decide what the namespace's root can read, nor what the image's files look like.
    await chmod(target, executable ? 0o755 : 0o644);
    for (let folder = dirname(target); folder !== shared; folder = dirname(folder))
      await chmod(folder, 0o755);
  }
  const lines = Object.entries(settings).map(
    ([key, value]) => `${key}='${value.replaceAll("'", `'\\''`)}'\n`,
  );
  await writeFile(join(shared, 'settings.sh'), lines.join(''));
  await chmod(join(shared, 'settings.sh'), 0o644);
}

/**
 * Checks that this user may build at all, before anything is downloaded.
 * @throws Failure `unsupported` off Linux, `dependency` with the command that mends it.
 */
export function checkPermissions(): void {
  if (process.platform !== 'linux') {
    throw new Failure('unsupported', 'images are built on Linux only', { hint: 'use --driver lima' });
  }
  if (isRoot()) return;
  const user = userInfo();
  for (const file of ['/etc/subuid', '/etc/subgid']) {
    const owners = (readIfExists(file) ?? '').split('\n').map((line) => line.split(':')[0]);
    if (owners.includes(user.username) || owners.includes(String(user.uid))) continue;
    throw new Failure('dependency', `${file} gives the user ${user.username} no range of ids to build with`, {
      hint: `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${user.username}\n(or build as root)`,
    });
  }
}
