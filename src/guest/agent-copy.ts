import { mkdir, stat } from 'node:fs/promises';
import { basename, dirname, posix, resolve } from 'node:path';
import { Writable } from 'node:stream';
import type { ExecRequest } from '../agent/protocol.ts';
import { Failure, hasCode } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { startStreaming } from '../host/process.ts';
import { lastLines } from '../host/run.ts';
import type { CommandOptions } from './agent-command.ts';
import { hints } from './agent-connect.ts';

/** Runs a command in the guest and gives its exit code; the deadline in milliseconds, 0 for none. */
export type RunInGuest = (
  request: ExecRequest,
  options: Omit<CommandOptions, 'name' | 'deadline'> & { readonly deadline: number },
) => Promise<number>;

const copyDeadline = 24 * 3_600_000;
/** GNU tar's 'some files changed while they were read'; elsewhere 1 is a failure. */
const changedWhileRead = 1;

/** For GNU tar: sparse files stay sparse, and a backslash in a name is a backslash. bsdtar does both by itself. */
const gnuFlags = ['-S', '--no-unquote'];
const hostFlags = process.platform === 'linux' ? gnuFlags : [];

/**
 * Unpacks into the folder $1. If there is none, it depends on $4: `contents` of a folder make one; a `single` source gets
 * its name: the first component of every member becomes $3 (escaped for tar) in the folder $2. Symlinks' targets are
 * left alone.
 */
const unpack = `[ -d "$1" ] || [ "$4" != contents ] || mkdir "$1" || exit
if [ -d "$1" ]; then exec tar -C "$1" --no-same-owner -xpf -; fi
if [ "$4" != single ]; then echo "$1 is no folder, and there are several sources" >&2; exit 2; fi
exec tar -C "$2" --no-same-owner --transform="s,^\\./[^/]*,./$3,S" -xpf -`;

/** Copies into the guest by a tar stream. As with cp, an existing folder receives the sources, else the single source that name. */
export async function copyIn(
  ctx: Pick<Context, 'env'>,
  name: string,
  run: RunInGuest,
  sources: readonly string[],
  destination: string,
  signal: AbortSignal,
): Promise<void> {
  const members = sources.flatMap((source) => member(source, resolve(source), { basename, dirname }));
  const tar = startStreaming(ctx.env, ['tar', '--format=pax', ...hostFlags, '-cf', '-', ...members], {
    effect: 'read',
    deadline: copyDeadline,
    signal,
    accept: process.platform === 'linux' ? [changedWhileRead] : [],
  });
  tar.stdin.end();
  const target = guestPath(destination);
  const words = [target, posix.dirname(target), replacement(posix.basename(target)), shapeOf(sources)];
  const stderr = keepLast();
  const streams = { stdin: tar.stdout, stdout: nowhere(), stderr: stderr.stream };
  const guest = run(
    { kind: 'exec', argv: ['sh', '-c', unpack, 'sh', ...words] },
    { streams, deadline: copyDeadline, signal, grace: 0 },
  ).finally(() => tar.stdout.destroy());
  const [there, here] = await Promise.allSettled([guest, tar.ended]);
  if (there.status === 'rejected') throw there.reason;
  if (there.value !== 0 && here.status === 'fulfilled')
    throw tarFailed(name, 'into', there.value, stderr.text());
  if (there.value !== 0 && !lostReader(here)) throw (here as PromiseRejectedResult).reason;
  if (there.value !== 0) throw tarFailed(name, 'into', there.value, stderr.text());
  if (here.status === 'rejected') throw here.reason;
}

/** The host's tar failed only because the guest's had ended before. */
function lostReader(result: PromiseSettledResult<void>): boolean {
  return (
    result.status === 'rejected' &&
    result.reason instanceof Failure &&
    (result.reason.data['signal'] === 'SIGPIPE' ||
      /Broken pipe|write error/i.test(result.reason.detail ?? ''))
  );
}

/** As `copyIn`, out of the guest. */
export async function copyOut(
  ctx: Pick<Context, 'env'>,
  name: string,
  run: RunInGuest,
  sources: readonly string[],
  destination: string,
  signal: AbortSignal,
): Promise<void> {
  const target = resolve(destination);
  const shape = shapeOf(sources);
  if (shape === 'contents') await mkdir(target, { recursive: true });
  const isFolder = await isLocalFolder(target);
  if (!isFolder && shape !== 'single') {
    throw new Failure('usage', `${destination} is no folder, and there are several sources`, {
      hint: `make the folder first: mkdir -p ${destination}`,
    });
  }
  const members = sources.flatMap((source) => member(source, guestPath(source), posix));
  const rename = isFolder ? [] : [`--transform=s,^\\./[^/]*,./${replacement(basename(target))},S`];
  const tar = startStreaming(
    ctx.env,
    ['tar', '-C', isFolder ? target : dirname(target), '--no-same-owner', '-xpf', '-'],
    { effect: 'write', deadline: copyDeadline, signal },
  );
  tar.stdout.resume();
  const stderr = keepLast();
  const guest = run(
    { kind: 'exec', argv: ['tar', '--format=pax', ...gnuFlags, ...rename, '-cf', '-', ...members] },
    { streams: { stdout: tar.stdin, stderr: stderr.stream }, deadline: copyDeadline, signal, grace: 0 },
  ).finally(() => tar.stdin.end());
  const [there, here] = await Promise.allSettled([guest, tar.ended]);
  const complete = there.status === 'fulfilled' && there.value <= changedWhileRead;
  if (there.status === 'fulfilled' && !complete) throw tarFailed(name, 'out of', there.value, stderr.text());
  // A host that can't write makes the guest's end fail as well; the cause is told, not what came of it.
  if (here.status === 'rejected' && (complete || isReaderGone(there))) throw here.reason;
  if (there.status === 'rejected') throw there.reason;
}

function isReaderGone(result: PromiseSettledResult<number>): boolean {
  return (
    result.status === 'rejected' && result.reason instanceof Error && result.reason.name === 'ReaderGone'
  );
}

function tarFailed(name: string, direction: 'into' | 'out of', code: number, words: string): Failure {
  return new Failure('guest', `copying ${direction} "${name}" failed: tar ended with exit code ${code}`, {
    ...(words ? { detail: words } : {}),
    ...hints({ name }),
  });
}

/** Relative paths are relative to root's home, where commands start. */
function guestPath(path: string): string {
  const tail = path === '~' || path.startsWith('~/') ? `.${path.slice(1)}` : path;
  return posix.resolve('/root', tail);
}

/** As with cp, a path that ends in a dot stands for what is in the folder. */
function isContents(source: string): boolean {
  return /(^|\/)\.{1,2}\/*$/.test(source);
}

function shapeOf(sources: readonly string[]): 'contents' | 'single' | 'several' {
  if (sources.every(isContents)) return 'contents';
  return sources.length === 1 ? 'single' : 'several';
}

/** tar's words for one source. Members start with `./`, so that no name is taken for an option. */
function member(source: string, path: string, by: Pick<typeof posix, 'basename' | 'dirname'>): string[] {
  if (isContents(source)) return ['-C', path, '.'];
  const name = by.basename(path);
  if (name !== '') return ['-C', by.dirname(path), `./${name}`];
  throw new Failure('usage', `${source} can't be copied whole`, { hint: 'name the folders below it' });
}

/** The right side of tar's `s,…,…,`, which gives a meaning to backslash, `&` and the comma. */
function replacement(name: string): string {
  return name.replaceAll(/[\\&,]/g, '\\$&');
}

async function isLocalFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return false;
    throw new Failure('files', `${path} can't be looked at`, { cause: error });
  }
}

function nowhere(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() });
}

/** Keeps the last words of a stream. */
function keepLast(): { stream: Writable; text: () => string } {
  let text = '';
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      text = (text + chunk.toString()).slice(-4096);
      done();
    },
  });
  return { stream, text: () => lastLines(text, 15) };
}
