import { join } from 'node:path';
import { Failure, hasCode } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { exists, readIfExists } from '../host/files.ts';
import type { Suite } from './recipe.ts';

/** One line of `apt-get indextargets`. */
const targetFormat = '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)';
const aptHelper = '/usr/lib/apt/apt-helper';

/**
 * Chooses the Debian mirror and makes sure that it has the suite: the one asked for, else that of the host's own apt
 * configuration if the host is Debian. Undefined leaves the choice to mmdebstrap, which knows Debian's public one.
 * @param work a writable folder for the probe's download.
 * @throws Failure `usage` if it is no http(s) or file address, `image` if it can't be reached.
 */
export async function chooseMirror(
  ctx: Context,
  suite: Suite,
  asked: string | undefined,
  work: string,
): Promise<string | undefined> {
  if (asked !== undefined) {
    const mirror = checkMirror(asked);
    await probe(ctx, mirror, suite, work);
    return mirror;
  }
  const own = await hostMirror(ctx);
  if (own === undefined) return undefined;
  try {
    await probe(ctx, own, suite, work);
    return own;
  } catch (error) {
    if (!(error instanceof Failure) || error.reason === 'interrupted') throw error;
    ctx.emit({
      type: 'notice',
      level: 'info',
      text: `this host's mirror ${own} has no ${suite}; using Debian's public one`,
    });
    return undefined;
  }
}

/** Accepts what apt and the guest's sources file can take: no spaces, no quotes. */
export function checkMirror(text: string): string {
  if (/^(https?|file):\/\/[\w.~:/@%+[\]-]+$/.test(text)) return text.replace(/\/+$/, '');
  throw new Failure('usage', `"${text}" is not the address of a Debian mirror`, {
    hint: 'write it like --mirror http://mirror.example/debian',
  });
}

async function hostMirror(ctx: Context): Promise<string | undefined> {
  const release = osRelease(readIfExists('/etc/os-release') ?? '');
  if (release.get('ID') !== 'debian') return undefined;
  try {
    const { stdout } = await ctx.run(['apt-get', 'indextargets', '--format', targetFormat], {
      effect: 'read',
      deadline: 30_000,
      signal: ctx.signal,
    });
    return debianMirror(stdout, release.get('VERSION_CODENAME') ?? '');
  } catch (error) {
    // A host whose apt can't tell is no reason to fail: there is a public mirror.
    if (error instanceof Failure && error.reason !== 'interrupted') return undefined;
    throw error;
  }
}

/** The variables of an os-release file. */
export function osRelease(text: string): Map<string, string> {
  const pairs = text.split('\n').map((line) => /^(\w+)="?([^"]*)"?$/.exec(line.trim()));
  return new Map(pairs.flatMap((pair): [string, string][] => (pair ? [[pair[1] ?? '', pair[2] ?? '']] : [])));
}

/**
 * Picks Debian's own archive out of `apt-get indextargets`. Others call themselves `bookworm main` too, so it must say
 * that it is Debian's, or (before the first `apt-get update`, when that is unknown) have an address that ends in /debian.
 */
export function debianMirror(targets: string, codename: string): string | undefined {
  for (const line of targets.split('\n')) {
    const [uri = '', release, component, origin] = line.split('|');
    const address = uri.replace(/\/+$/, '');
    if (release !== codename || component !== 'main' || !/^https?:/.test(address)) continue;
    const isDebian = origin === 'Debian' || (!origin && address.endsWith('/debian'));
    if (isDebian) return address;
  }
  return undefined;
}

/** Fetches the suite's release file the way apt would, its proxy settings included. */
async function probe(ctx: Context, mirror: string, suite: Suite, work: string): Promise<void> {
  if (!exists(aptHelper)) return;
  const url = `${mirror}/dists/${suite}/InRelease`;
  try {
    await ctx.run([aptHelper, '-oAcquire::Retries=1', 'download-file', url, join(work, 'InRelease')], {
      effect: 'write',
      deadline: 60_000,
      signal: ctx.signal,
    });
  } catch (error) {
    if (!(error instanceof Failure) || error.reason === 'interrupted' || hasCode(error, 'ENOENT'))
      throw error;
    throw new Failure('image', `the mirror ${mirror} has no ${suite} for us: ${url} can't be fetched`, {
      ...(error.detail ? { detail: error.detail } : {}),
      hint: 'check the network, or name another mirror: --mirror URL',
      cause: error,
    });
  }
}
