import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { readIfExists, writeFileAtomically } from '../host/files.ts';
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
  const begun = { version: 1, id, request, inputs: await sumsOf(request, ctx.signal) };
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
  const before = recordedSums(paths);
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

/** Nothing, where it can't be told. */
function recordedSums({ state }: BuildPaths): Readonly<Record<string, unknown>> {
  try {
    const { inputs } = JSON.parse(readIfExists(state) ?? '') as { inputs?: Record<string, unknown> };
    return inputs ?? {};
  } catch {
    return {};
  }
}
