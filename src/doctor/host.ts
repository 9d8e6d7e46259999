import { access, readFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { delimiter, join } from 'node:path';
import { hasCode } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { findOnPath } from '../host/programs.ts';
import { temporaryFolder } from '../image/workplace.ts';
import { isDebianLike, parseOsRelease, type OsRelease } from './os-release.ts';

/** How packages are installed here; undefined where zfsdev doesn't know. */
export type PackageManager = 'apt' | 'brew' | undefined;

export interface User {
  readonly uid: number;
  readonly name: string;
}

/** The facts of this host that the checks look at; tests pass their own. */
export interface Host {
  readonly ctx: Context;
  readonly platform: NodeJS.Platform;
  readonly nodeVersion: string;
  readonly user: User;
  readonly release: OsRelease;
  readonly manager: PackageManager;
  /** Where the system's own files begin: `/`. */
  readonly root: string;
  /** Where image builds unpack packages. */
  readonly temporary: string;
}

export type HostOverrides = Partial<Pick<Host, 'platform' | 'nodeVersion' | 'user' | 'root' | 'temporary'>>;

/** Gathers what all checks need. */
export async function lookAtHost(ctx: Context, overrides: HostOverrides = {}): Promise<Host> {
  const platform = overrides.platform ?? process.platform;
  const root = overrides.root ?? '/';
  const release = parseOsRelease(
    (await systemText(root, 'etc/os-release')) ?? (await systemText(root, 'usr/lib/os-release')) ?? '',
  );
  return {
    ctx,
    platform,
    nodeVersion: overrides.nodeVersion ?? process.versions.node,
    user: overrides.user ?? currentUser(ctx.env),
    release,
    manager: await packageManager(ctx, platform, release),
    root,
    temporary: overrides.temporary ?? temporaryFolder(ctx.env),
  };
}

async function packageManager(
  ctx: Context,
  platform: NodeJS.Platform,
  release: OsRelease,
): Promise<PackageManager> {
  if (platform === 'darwin') return (await findProgram(ctx.env, 'brew')) ? 'brew' : undefined;
  return isDebianLike(release) && (await findProgram(ctx.env, 'apt-get')) ? 'apt' : undefined;
}

/** The user, also where the password file has no line for the user id (a container's arbitrary one). */
function currentUser(env: Readonly<NodeJS.ProcessEnv>): User {
  const uid = process.getuid?.() ?? 0;
  try {
    return { uid, name: userInfo().username };
  } catch {
    return { uid, name: env['USER'] ?? String(uid) };
  }
}

/** The text of a file of the system (a path below its root), or undefined if there is none that can be read. */
export async function systemText(root: string, path: string): Promise<string | undefined> {
  try {
    return await readFile(join(root, path), 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return undefined;
    throw error;
  }
}

/** The path of a program on PATH, or in one of the further folders; undefined if it is in none of them. */
export async function findProgram(
  env: Readonly<NodeJS.ProcessEnv>,
  program: string,
  further: readonly string[] = [],
): Promise<string | undefined> {
  return (
    (await findOnPath(env, program)) ??
    (further.length === 0 ? undefined : await findOnPath({ PATH: further.join(delimiter) }, program))
  );
}

/** True if this process may use the path so (`constants.R_OK` ...); false also if it isn't there. */
export async function isAllowed(path: string, mode: number): Promise<boolean> {
  try {
    await access(path, mode);
    return true;
  } catch {
    return false;
  }
}
