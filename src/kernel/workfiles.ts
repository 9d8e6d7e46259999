import { constants } from 'node:fs';
import { chmod, copyFile, cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { findPackageRoot } from '../host/package-root.ts';
import { sha256Of } from '../image/kernel-archive.ts';
import { describeConfig, describeSource, describeZfs, type KernelRequest } from './request.ts';

const GB = 10 ** 9;

/** When every kernel says it was built: a moment that is always the same lets a compiler's cache answer. */
const buildTime = 'Thu Jan  1 00:00:00 UTC 2026';

/** What a build takes at its most beside its tools, in bytes: measured for the named configurations, with a third more. */
export function neededSpace({ config }: Pick<KernelRequest, 'config'>): number {
  if (config.kind === 'file') return 11 * GB;
  return { tinyconfig: 3 * GB, defconfig: 6 * GB, 'debian-cloud': 11 * GB }[config.name];
}

/** A file with a wrong checksum is refused before anything is made. @throws Failure `files` */
export async function checkSource({ source, sha256 }: KernelRequest, signal: AbortSignal): Promise<void> {
  if (source.kind !== 'archive' || sha256 === undefined) return;
  const found = await sha256Of(source.path, signal);
  if (found === sha256) return;
  throw new Failure('files', `the checksum of ${source.path} is wrong: ${found} instead of ${sha256}`, {
    hint: 'fetch the file again, or correct --sha256',
    data: { path: source.path, expected: sha256, found },
  });
}

/** Where what is laid out will be used. */
export interface WorkPlace {
  /** The tools are installed first, and what is deleted is given back to the host. */
  readonly inMachine: boolean;
  /** The bytes that have to be free there, to begin with; none are asked for where the user said that it may fail. */
  readonly needed: number;
}

/**
 * Lays out what a builder is handed in a folder: settings.sh, in/ and provision/.
 * @throws Failure `files`, `process`, `interrupted`
 */
export async function layOutWork(
  ctx: Context,
  folder: string,
  request: KernelRequest,
  place: WorkPlace,
): Promise<void> {
  const inputs = join(folder, 'in');
  try {
    await mkdir(join(inputs, 'fragments'), { recursive: true });
    await layOutProvision(join(folder, 'provision'));
    await layOutFiles(inputs, request);
    await writeFile(join(folder, 'settings.sh'), settings(request, place));
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('files', `what a build needs can't be laid out in ${folder}: ${messageOf(error)}`, {
      hint: 'make room there, or point ZFSDEV_HOME at a folder with room',
      cause: error,
    });
  }
  const { source } = request;
  if (source.kind !== 'folder') return;
  await ctx.run(['tar', '--exclude=./.git', '-C', source.path, '-cf', join(inputs, 'source.tar'), '.'], {
    effect: 'write',
    deadline: 3_600_000,
    signal: ctx.signal,
    orphanSignal: 'KILL',
  });
}

async function layOutProvision(folder: string): Promise<void> {
  const from = join(findPackageRoot(), 'provision');
  await mkdir(join(folder, 'image'), { recursive: true });
  await cp(join(from, 'kernel'), join(folder, 'kernel'), { recursive: true });
  const programs = [
    'kernel-build.sh',
    'kernel-enter.sh',
    'build-tools.sh',
    'image/init',
    'kernel/cached/gcc',
  ];
  for (const name of programs) {
    await copyFile(join(from, name), join(folder, name));
    await chmod(join(folder, name), 0o755);
  }
}

async function layOutFiles(inputs: string, { source, config, fragments, zfs }: KernelRequest): Promise<void> {
  const copy = (from: string, name: string): Promise<void> =>
    copyFile(from, join(inputs, name), constants.COPYFILE_FICLONE);
  if (source.kind === 'archive') await copy(source.path, 'source.tar');
  if (config.kind === 'file') await copy(config.path, 'config');
  if (zfs.kind === 'archive') await copy(zfs.path, 'zfs.tar');
  for (const [index, path] of fragments.entries())
    await copy(path, `fragments/${String(index).padStart(3, '0')}`);
}

function settings(request: KernelRequest, { inMachine, needed }: WorkPlace): string {
  const { source, config, zfs, guest, localversion, jobs, sha256 } = request;
  const values: Record<string, string | number> = {
    SOURCE_KIND: source.kind === 'folder' ? 'archive' : source.kind,
    SOURCE: source.kind === 'git' ? source.url : describeSource(source),
    SOURCE_REF: source.kind === 'git' ? source.ref : '',
    SOURCE_SHA256: sha256 ?? '',
    CONFIG: config.kind === 'named' ? config.name : 'file',
    CONFIG_NAME: describeConfig(config),
    GUEST: guest ? 'yes' : 'no',
    LOCALVERSION: localversion,
    ZFS: zfs.kind,
    ZFS_NAME: describeZfs(zfs),
    JOBS: jobs,
    NEEDED_KIB: Math.ceil(needed / 1024),
    BUILD_TIME: buildTime,
    TRIM: inMachine ? 'yes' : 'no',
    TOOLS: inMachine ? 'install' : 'there',
    OPTIONS: JSON.stringify(request),
  };
  return Object.entries(values)
    .map(([key, value]) => `${key}='${String(value).replaceAll("'", `'\\''`)}'\n`)
    .join('');
}
