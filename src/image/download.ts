import { open, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { formatBytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { makePrivateFolder } from '../host/files.ts';
import { PartialDownload } from './partial.ts';

export interface DownloadOptions {
  readonly signal: AbortSignal;
  /** Bytes that are there, and how many there will be, where the server tells. */
  readonly progress: (done: number, total: number | undefined) => void;
  /** Something to tell the user on the way. */
  readonly notice: (text: string) => void;
  /** Called before the first byte is written; what it throws ends the download. */
  readonly admit: (left: number) => Promise<void>;
  /** Called with the first bytes of the file; what it throws ends the download. */
  readonly look: (start: Buffer) => void;
  /** Milliseconds without a byte after which a connection counts as dead; 60 s if left out. */
  readonly stallAfter?: number;
  /** Milliseconds before the second attempt, doubled for each one after; 1 s if left out. */
  readonly pause?: number;
}

/** Attempts in a row that brought nothing new, after which it is given up. */
const barrenAttempts = 4;
const defaultStall = 60_000;

/** The connection ended before the file did: worth another attempt. */
class CutOff extends Error {
  override readonly name = 'CutOff';
}

/**
 * Fetches a file into a folder of its own, which it may have begun before: goes on from what is there if the server has
 * still the same, and begins anew if not. A connection that is cut off or stands still is made again as long as each attempt
 * brings something. What has come stays in the folder, whatever happens.
 * @returns the path of the whole file
 * @throws Failure `image` that tells how far it got, `no-space`, `files`, `interrupted`
 */
export async function download(url: string, folder: string, options: DownloadOptions): Promise<string> {
  await makePrivateFolder(folder);
  const partial = new PartialDownload(folder);
  const first = (await partial.resumable(url))?.bytes ?? 0;
  if (first > 0) options.notice(`going on after the ${formatBytes(first)} that came before`);
  let [most, barren] = [first, 0];
  for (;;) {
    try {
      await attempt(url, partial, options);
      return partial.file;
    } catch (error) {
      if (options.signal.aborted) throw await interrupted(url, partial);
      if (!(error instanceof CutOff)) throw error;
      const bytes = await partial.bytes();
      barren = bytes > most ? 0 : barren + 1;
      // Where nothing ever came, the address is wrong, or there is no network.
      if (barren >= barrenAttempts || (bytes === 0 && most === 0)) throw await cutOff(url, partial, error);
      most = Math.max(most, bytes);
      const pause = (options.pause ?? 1000) * 2 ** barren;
      options.notice(`the download was cut off at ${formatBytes(bytes)} (${error.message}); trying again`);
      await delay(pause, undefined, { signal: options.signal }).catch(() => undefined);
    }
  }
}

async function attempt(url: string, partial: PartialDownload, options: DownloadOptions): Promise<void> {
  const stall = new StallTimer(options.stallAfter ?? defaultStall);
  const signal = AbortSignal.any([options.signal, stall.signal]);
  try {
    const known = await partial.resumable(url);
    const response = await fetch(url, {
      signal,
      headers: {
        // Bytes as they lie there: what is unpacked on the way could not be gone on with.
        'accept-encoding': 'identity',
        'user-agent': 'zfsdev',
        ...(known ? { range: `bytes=${known.bytes}-`, 'if-range': known.record.validator } : {}),
      },
    });
    stall.heard();
    if (response.status === 416 && known) {
      await response.body?.cancel();
      if (known.bytes === known.record.total) return;
      await partial.restart();
      throw new CutOff('the server has less of it now');
    }
    if (!response.ok) throw await refused(url, response);
    await receive(url, response, partial, known?.bytes ?? 0, { ...options, stall });
  } catch (error) {
    if (error instanceof Failure || error instanceof CutOff) throw error;
    if (stall.signal.aborted) throw new CutOff(`no byte came for ${stall.after / 1000} s`);
    if (!isNetworkError(error)) throw error;
    throw new CutOff(wordsOf(error), { cause: error });
  } finally {
    stall.end();
  }
}

interface Receiving extends DownloadOptions {
  readonly stall: StallTimer;
}

async function receive(
  url: string,
  response: Response,
  partial: PartialDownload,
  present: number,
  options: Receiving,
): Promise<void> {
  const isRest = response.status === 206;
  if (isRest && startOf(response) !== present) {
    await response.body?.cancel();
    await partial.restart();
    throw new CutOff('the server sent another part than the one asked for');
  }
  const start = isRest ? present : 0;
  const total = totalOf(response, start);
  // Not counted as the network's silence: how long it takes is the host's affair.
  options.stall.pause();
  if (total !== undefined) await options.admit(total - start);
  if (!isRest) await partial.restart();
  await partial.begin({ url, total, validator: validatorOf(response) });
  const file = await openAt(partial.file, isRest);
  options.stall.heard();
  try {
    const end = await writeAll(response, file, start, total, options);
    if (total !== undefined && end < total)
      throw new CutOff(`the server ended the connection ${formatBytes(total - end)} early`);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function writeAll(
  response: Response,
  file: FileHandle,
  start: number,
  total: number | undefined,
  { stall, progress, look }: Receiving,
): Promise<number> {
  let at = start;
  for await (const chunk of response.body ?? []) {
    const bytes = Buffer.from(chunk as Uint8Array);
    stall.pause();
    if (at === 0) look(bytes);
    await write(file, bytes, at);
    at += bytes.length;
    progress(at, total);
    stall.heard();
  }
  return at;
}

async function openAt(path: string, append: boolean): Promise<FileHandle> {
  try {
    return await open(path, append ? 'r+' : 'w', 0o600);
  } catch (error) {
    throw new Failure('files', `${path} can't be written: ${messageOf(error)}`, { cause: error });
  }
}

async function write(file: FileHandle, bytes: Buffer, at: number): Promise<void> {
  try {
    for (let done = 0; done < bytes.length;)
      done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
  } catch (error) {
    if (!hasCode(error, 'ENOSPC', 'EDQUOT'))
      throw new Failure('files', `the image can't be written: ${messageOf(error)}`, { cause: error });
    throw new Failure('no-space', "the host's disk was full before all of the image had come", {
      hint: 'zfsdev usage tells what takes the room; the same command goes on from there then',
      cause: error,
    });
  }
}

/** What tells one state of the file from another; a weak ETag may stand for several. */
function validatorOf({ headers }: Response): string | undefined {
  if (!isAsItLies(headers)) return undefined;
  const etag = headers.get('etag');
  return etag && !etag.startsWith('W/') ? etag : (headers.get('last-modified') ?? undefined);
}

function totalOf({ headers }: Response, start: number): number | undefined {
  const length = Number(headers.get('content-length') ?? Number.NaN);
  return isAsItLies(headers) && Number.isSafeInteger(length) ? start + length : undefined;
}

/** False if the server packed it for the way, though it wasn't asked to: lengths are those of something else then. */
function isAsItLies(headers: Headers): boolean {
  return (headers.get('content-encoding') ?? 'identity') === 'identity';
}

function startOf({ headers }: Response): number | undefined {
  const match = /^bytes (\d+)-/.exec(headers.get('content-range') ?? '');
  return match ? Number(match[1]) : undefined;
}

async function refused(url: string, response: Response): Promise<Failure | CutOff> {
  await response.body?.cancel();
  const { status, statusText } = response;
  const words = `${status} ${statusText}`.trim();
  // Too many requests, or a server in trouble: both pass.
  if (status === 429 || status >= 500) return new CutOff(`the server answered ${words}`);
  return new Failure('image', `${url} can't be fetched: the server answered ${words}`, {
    hint:
      status === 404
        ? 'look whether the address is right: publishers remove dated images after some months'
        : 'look whether the address is right',
    data: { url, status },
  });
}

async function cutOff(url: string, partial: PartialDownload, error: CutOff): Promise<Failure> {
  const known = await partial.resumable(url);
  const data = { url, bytes: known?.bytes ?? 0, total: known?.record.total ?? null };
  if (!known) {
    return new Failure('image', `${url} can't be fetched: ${error.message}`, {
      hint: 'look whether the address is right and the network there\nor fetch it by other means, and pull the file: zfsdev image pull FILE --digest DIGEST',
      data,
      cause: error,
    });
  }
  return new Failure('image', `the download of ${url} was cut off: ${error.message}`, {
    hint: `${shareOf(known)} are kept: the same command goes on from there; zfsdev image prune removes them`,
    data,
    cause: error,
  });
}

async function interrupted(url: string, partial: PartialDownload): Promise<Failure> {
  const known = await partial.resumable(url);
  return new Failure('interrupted', `the download of ${url} was interrupted`, {
    hint: known
      ? `${shareOf(known)} are kept: the same command goes on from there; zfsdev image prune removes them`
      : 'the same command begins anew',
  });
}

function shareOf({
  bytes,
  record: { total },
}: {
  bytes: number;
  record: { total?: number | undefined };
}): string {
  return total === undefined ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(total)}`;
}

/** undici throws a TypeError for all that goes wrong on the way, with the cause in it. */
function isNetworkError(error: unknown): boolean {
  return error instanceof TypeError || (error instanceof Error && 'code' in error);
}

function wordsOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  // Several addresses were tried, each with an error of its own.
  const first: unknown = cause instanceof AggregateError ? cause.errors[0] : cause;
  return messageOf(first ?? error) || messageOf(error);
}

/** Aborts its signal once nothing was heard for a while; the whole may take as long as it takes. */
class StallTimer {
  readonly after: number;
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(after: number) {
    this.after = after;
    this.heard();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  heard(): void {
    this.pause();
    this.#timer = setTimeout(() => this.#controller.abort(), this.after);
  }

  pause(): void {
    clearTimeout(this.#timer);
  }

  end(): void {
    this.pause();
  }
}
