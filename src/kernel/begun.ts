import { Failure } from '../core/errors.ts';
import { bootId } from '../host/boot.ts';
import type { Context } from '../host/context.ts';
import { exists, readIfExists, writeFileAtomically } from '../host/files.ts';
import type { BuildPaths } from '../host/paths.ts';
import { sha256Of } from '../image/kernel-archive.ts';
import type { KernelRequest } from './request.ts';

/** Files that a build is begun with a copy of. */
function inputsOf({ source, config, fragments, zfs }: KernelRequest): string[] {
  const others = [source, config, zfs].flatMap((each) =>
    each.kind === 'archive' || each.kind === 'file' ? [each.path] : [],
  );
  return [...new Set([...others, ...fragments])];
}

/** Checksums of these files as they are now, by their paths. */
async function sumsOf(request: KernelRequest, signal: AbortSignal): Promise<Record<string, string>> {
  const sums: Record<string, string> = {};
  for (const path of inputsOf(request)) sums[path] = await sha256Of(path, signal);
  return sums;
}

/** Writes down what a build was begun with: from here on it can go on. */
export async function recordBegun(
  ctx: Context,
  paths: BuildPaths,
  id: string,
  request: KernelRequest,
): Promise<void> {
  const [boot, inputs] = [await bootId(ctx), await sumsOf(request, ctx.signal)];
  const begun = { version: 1, id, request, boot, inputs };
  await writeFileAtomically(paths.state, `${JSON.stringify(begun, null, 2)}\n`);
}

/**
 * Looks whether a build that goes on, with the copies that it has, is still the one that is asked for. A folder's files are not
 * compared: it is only said that they were copied.
 * @param anew how a build is begun anew
 * @throws Failure `wrong-state` if a file is another now
 */
export async function checkBegun(
  ctx: Context,
  paths: BuildPaths,
  request: KernelRequest,
  anew: string,
): Promise<void> {
  const before = recorded(paths).inputs ?? {};
  const now = await sumsOf(request, ctx.signal);
  const changed = Object.keys(now).filter((path) => before[path] !== undefined && before[path] !== now[path]);
  if (changed.length > 0) {
    throw new Failure(
      'wrong-state',
      `the build that is to go on was begun with another ${changed.join(', ')}, and would go on with that`,
      { hint: anew, data: { changed } },
    );
  }
  if (request.source.kind !== 'folder') return;
  const text = `going on with ${request.source.path} as it was when this build began; what was changed there since is not in it`;
  ctx.emit({ type: 'notice', level: 'info', text });
}

/**
 * Looks whether a build in a folder of this host is there still: one that was young when the host lost its power is not on its
 * disk (`settle` of provision/kernel-build.sh).
 * @param anew how a build is begun anew
 * @throws Failure `wrong-state` if it is not
 */
export async function checkSettled(ctx: Context, paths: BuildPaths, anew: string): Promise<void> {
  if (exists(paths.settled) || recorded(paths).boot === (await bootId(ctx))) return;
  const message =
    'the build that is to go on had only begun when this host was started anew, and was not on its disk';
  throw new Failure('wrong-state', message, {
    hint: `${anew}; what was compiled is in the compiler's cache`,
  });
}

interface Recorded {
  readonly boot?: unknown;
  readonly inputs?: Readonly<Record<string, unknown>>;
}

/** Nothing, where it can't be told. */
function recorded({ state }: BuildPaths): Recorded {
  try {
    return JSON.parse(readIfExists(state) ?? '') as Recorded;
  } catch {
    return {};
  }
}
