import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';

/** Where the kernel's source comes from; paths are absolute. */
export type Source =
  | { readonly kind: 'debian' }
  | { readonly kind: 'archive' | 'folder'; readonly path: string }
  | { readonly kind: 'url'; readonly url: string }
  | { readonly kind: 'git'; readonly url: string; readonly ref: string };

export const configNames = ['defconfig', 'tinyconfig', 'debian-cloud'] as const;
export type ConfigName = (typeof configNames)[number];

export type Config =
  { readonly kind: 'named'; readonly name: ConfigName } | { readonly kind: 'file'; readonly path: string };

/** OpenZFS: none, the distribution's source, or a release's archive on the host. */
export type Zfs = { readonly kind: 'none' | 'debian' } | { readonly kind: 'archive'; readonly path: string };

/** All that decides what kernel comes out, and how many compilers run at once. */
export interface KernelRequest {
  readonly source: Source;
  /** What the source's archive must have, in hex. */
  readonly sha256?: string | undefined;
  readonly config: Config;
  /** Files with options over the configuration, the last one winning. */
  readonly fragments: readonly string[];
  readonly localversion: string;
  readonly zfs: Zfs;
  /** The options that a machine of zfsdev's needs are merged in. */
  readonly guest: boolean;
  readonly jobs: number;
}

/** The options of `build-kernel` as they were typed. */
export interface RequestOptions {
  readonly source?: string;
  readonly sha256?: string;
  readonly config?: string;
  readonly fragment?: readonly string[];
  readonly localversion?: string;
  readonly zfs?: string;
  /** `--no-guest-options`. */
  readonly guestOptions?: boolean;
  readonly jobs?: number;
}

/**
 * Reads what was typed, and looks whether the files are there.
 * @throws Failure `usage` that names the option, `not-found` for a file.
 */
export async function parseRequest(options: RequestOptions): Promise<KernelRequest> {
  const source = await parseSource(options.source ?? 'debian');
  const zfs = await parseZfs(options.zfs ?? 'debian');
  return {
    source,
    sha256: parseChecksum(options.sha256, source),
    config: await parseConfig(options.config ?? 'debian-cloud'),
    fragments: await Promise.all((options.fragment ?? []).map((path) => fileAt('--fragment', path))),
    localversion: parseLocalversion(options.localversion ?? '-zfsdev'),
    zfs,
    guest: options.guestOptions ?? zfs.kind !== 'none',
    jobs: parseJobs(options.jobs),
  };
}

async function parseSource(text: string): Promise<Source> {
  if (text === 'debian') return { kind: 'debian' };
  refuseSecret(text);
  refuseUnreachable(text);
  const git = /^(?:git\+)?((?:https?|git):\/\/[^\s#]+)#(.+)$/.exec(text);
  if (git?.[1] && git[2]) {
    if (!/^[A-Za-z0-9][\w./+-]*$/.test(git[2]) || git[2].includes('..'))
      throw new Failure('usage', `--source: "${git[2]}" is no name of a branch, a tag or a commit`);
    return { kind: 'git', url: git[1], ref: git[2] };
  }
  if (/^(git\+|git:)|\.git$/.test(text) && /:\/\//.test(text)) {
    throw new Failure('usage', `--source: ${text} has no branch, tag or commit`, {
      hint: `write it behind a #: --source '${text}#v6.12'`,
    });
  }
  if (/^https?:\/\/\S+$/.test(text)) return { kind: 'url', url: text };
  if (/^\w+:\/\//.test(text)) {
    throw new Failure('usage', `--source: ${text} is no address that a source can be fetched from`, {
      hint: 'debian, a tarball or a folder on this host, an http(s) address, or a git address with #REF',
    });
  }
  const path = resolve(text);
  return { kind: (await kindOf('--source', path)) === 'folder' ? 'folder' : 'archive', path };
}

/** The archive and its log tell where the source came from, and are there to be handed on. */
function refuseSecret(text: string): void {
  if (!/^(git\+)?https?:\/\/[^/\s]*@|^[\w+]+:\/\/[^/\s@]*:[^/\s]*@/.test(text)) return;
  throw new Failure(
    'usage',
    '--source: an address with a password or a token in it would be told by the archive',
    {
      hint: 'fetch it on this host, and name the folder or the tarball',
    },
  );
}

/** The place of a build has neither the keys nor the files of this host. */
function refuseUnreachable(text: string): void {
  if (!/^(git\+)?(ssh|file):\/\/|^\w+@[\w.-]+:/.test(text)) return;
  const what = text.includes('file:') ? 'does not see the files of this host' : 'has no key of yours';
  throw new Failure('usage', `--source: the place of the build ${what}, and so can not fetch ${text}`, {
    hint: 'clone it on this host (git clone --depth 1 --branch REF ADDRESS), and name the folder',
  });
}

async function parseConfig(text: string): Promise<Config> {
  const name = configNames.find((known) => known === text);
  if (name) return { kind: 'named', name };
  try {
    return { kind: 'file', path: await fileAt('--config', text) };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    throw new Failure(error.reason, error.message, {
      hint: `configurations are ${configNames.join(', ')}, or a file of yours`,
      cause: error,
    });
  }
}

async function parseZfs(text: string): Promise<Zfs> {
  if (text === 'none' || text === 'debian') return { kind: text };
  try {
    return { kind: 'archive', path: await fileAt('--zfs', text) };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    throw new Failure(error.reason, error.message, {
      hint: 'write none, debian, or the tarball of a release of OpenZFS on this host',
      cause: error,
    });
  }
}

function parseChecksum(text: string | undefined, source: Source): string | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-9a-f]{64}$/i.test(text))
    throw new Failure('usage', `--sha256: "${text}" is no sha256 sum`, { hint: 'it has 64 digits, 0 to f' });
  if (source.kind === 'archive' || source.kind === 'url') return text.toLowerCase();
  throw new Failure('usage', `--sha256 is for a tarball, and the source is ${describeSource(source)}`, {
    hint: source.kind === 'debian' ? 'packages of Debian are checked by their signature' : 'leave it out',
  });
}

function parseLocalversion(text: string): string {
  if (/^[-_.+~][A-Za-z0-9_.+~-]{1,39}$/.test(text)) return text;
  throw new Failure('usage', `--localversion: "${text}" can't be part of a kernel's name`, {
    hint: 'begin with a - and go on with at most 39 letters, digits, or any of . _ + ~ -, for instance -test1',
  });
}

function parseJobs(jobs: number | undefined): number {
  if (jobs !== undefined && (jobs < 1 || jobs > 1024))
    throw new Failure('usage', `--jobs: ${jobs} is not between 1 and 1024`);
  return jobs ?? availableParallelism();
}

async function fileAt(option: string, text: string): Promise<string> {
  const path = resolve(text);
  if ((await kindOf(option, path)) === 'file') return path;
  throw new Failure('usage', `${option}: ${path} is a folder, not a file`);
}

async function kindOf(option: string, path: string): Promise<'file' | 'folder'> {
  try {
    const found = await stat(path);
    if (found.isDirectory()) return 'folder';
    if (found.isFile()) return 'file';
  } catch (error) {
    throw new Failure('not-found', `${option}: ${path} can't be looked at: ${messageOf(error)}`, {
      hint: 'check its spelling',
      cause: error,
    });
  }
  throw new Failure('usage', `${option}: ${path} is neither a file nor a folder`);
}

/** A source in a word or its address. */
export function describeSource(source: Source): string {
  switch (source.kind) {
    case 'debian':
      return "Debian's linux-source";
    case 'archive':
    case 'folder':
      return source.path;
    case 'url':
      return source.url;
    case 'git':
      return `${source.url}#${source.ref}`;
  }
}

export function describeZfs(zfs: Zfs): string {
  return zfs.kind === 'archive' ? zfs.path : zfs.kind;
}

export function describeConfig(config: Config): string {
  return config.kind === 'named' ? config.name : config.path;
}

/**
 * The name of a build: equal for equal requests at one builder, so that a build that was cut off is found again, and none
 * is made twice at once. The number of jobs is no part of it.
 */
export function buildId(request: KernelRequest, builder: string): string {
  const text = JSON.stringify({ builder, request: { ...request, jobs: 0 } });
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}
