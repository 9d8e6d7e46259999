import { realpath, stat } from 'node:fs/promises';
import { arch } from 'node:process';
import * as v from 'valibot';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { makePrivateFolder, readIfExists, writeFileAtomically } from '../host/files.ts';
import { installCommand } from '../host/packages.ts';
import { findOnPath } from '../host/programs.ts';
import type { Architecture } from './machine.ts';

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** As QEMU writes it, its packager's part left out: `7.2.22`. */
  readonly text: string;
}

/** One program of QEMU on this host. */
export interface QemuBinary {
  /** Absolute, as found on PATH. */
  readonly binary: string;
  readonly version: QemuVersion;
}

/**
 * The oldest version zfsdev works with: since 6.2 `-device` takes JSON (so that no value needs escaping), and saving
 * memory, which came with 6.0, works again after 6.1 broke it. Ubuntu 22.04 has 6.2.
 */
export const minimumVersion = { major: 6, minor: 2 } as const;

const deadline = 20_000;

/** The architecture of this host, which is the guests' too. @throws Failure `unsupported` on any other. */
export function hostArchitecture(nodeArch: string = arch): Architecture {
  if (nodeArch === 'x64') return 'x86_64';
  if (nodeArch === 'arm64') return 'aarch64';
  throw new Failure('unsupported', `there are no machines for a ${nodeArch} host`, {
    hint: 'zfsdev runs on x86_64 and arm64',
  });
}

/**
 * Finds `qemu-system-<architecture>` on PATH and asks its version.
 * @throws Failure `dependency` with the command that installs it, if it is missing or too old.
 */
export function findQemu(ctx: Context, architecture: Architecture): Promise<QemuBinary> {
  return findBinary(ctx, `qemu-system-${architecture}`);
}

/** As `findQemu`, for qemu-img. */
export function findQemuImg(ctx: Context): Promise<QemuBinary> {
  return findBinary(ctx, 'qemu-img');
}

async function findBinary(ctx: Context, program: string): Promise<QemuBinary> {
  const binary = await findOnPath(ctx.env, program);
  if (binary === undefined) throw missing(program, `${program} is not installed, or not on PATH`);
  const version = await versionOf(ctx, binary);
  if (!isSupported(version)) {
    const { major, minor } = minimumVersion;
    throw missing(
      program,
      `${program} is version ${version.text}, and zfsdev needs ${major}.${minor} or later`,
    );
  }
  return { binary, version };
}

/** Asked once; remembered until the program is replaced, because starting QEMU just for that is a tenth of a fork. */
async function versionOf(ctx: Context, binary: string): Promise<QemuVersion> {
  const print = await fingerprint(binary);
  const known = v.safeParse(knownVersions, readJson(ctx.paths.programs));
  const remembered = known.success ? known.output : {};
  const version = parseVersion(remembered[print] ?? '');
  if (version) return version;
  const { stdout } = await ctx.run([binary, '--version'], { effect: 'read', deadline, signal: ctx.signal });
  const asked = parseVersion(stdout);
  if (!asked) {
    throw new Failure('dependency', `${binary} does not tell its version`, {
      hint: 'zfsdev doctor shows what is installed',
      detail: stdout,
    });
  }
  if (!ctx.dryRun) await remember(ctx, { ...remembered, [print]: stdout.split('\n')[0] ?? '' });
  return asked;
}

/** First lines of `--version` by the programs' fingerprints. */
const knownVersions = v.record(v.string(), v.string());

/** Two that remember at once may each forget the other's; it is asked again then. */
async function remember(ctx: Context, versions: v.InferOutput<typeof knownVersions>): Promise<void> {
  await makePrivateFolder(ctx.paths.home);
  // Programs of yesterday are forgotten before the list grows long.
  const recent = Object.fromEntries(Object.entries(versions).slice(-8));
  await writeFileAtomically(ctx.paths.programs, `${JSON.stringify(recent, null, 2)}\n`);
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readIfExists(path) ?? '{}');
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

function missing(program: string, message: string): Failure {
  const install = installCommand(program);
  return new Failure('dependency', message, {
    hint: install ? `${install}\n(or: zfsdev doctor --fix)` : 'zfsdev doctor shows what is missing',
    data: { program },
  });
}

/** Reads the first line of `qemu-system-* --version` or `qemu-img --version`; undefined if it is something else. */
export function parseVersion(output: string): QemuVersion | undefined {
  const match = /^(?:QEMU emulator|qemu-img) version (\d+)\.(\d+)(?:\.(\d+))?/.exec(output);
  if (!match) return undefined;
  const [major, minor, micro] = [match[1], match[2], match[3]].map((part) => Number(part ?? 0));
  if (major === undefined || minor === undefined || micro === undefined) return undefined;
  return { major, minor, micro, text: `${major}.${minor}.${micro}` };
}

/** True if the version is the minimum or later. */
export function isSupported({ major, minor }: Pick<QemuVersion, 'major' | 'minor'>): boolean {
  return major > minimumVersion.major || (major === minimumVersion.major && minor >= minimumVersion.minor);
}

/** What changes when a program is replaced: where it really lies, its time of change and its length. */
export async function fingerprint(binary: string): Promise<string> {
  try {
    const path = await realpath(binary);
    const { mtimeMs, size } = await stat(path);
    return `${path}:${mtimeMs}:${size}`;
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR'))
      throw new Failure('dependency', `${binary} is gone`, { cause: error });
    throw new Failure('files', `${binary} can't be looked at: ${messageOf(error)}`, { cause: error });
  }
}
