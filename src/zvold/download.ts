import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { ZvolError, wordsOf } from './errors.ts';
import { type Kept, StartOver } from './kept.ts';
import { allowedUrl, lookupFor, type Policy } from './policy.ts';

const mostRedirects = 5;
/** Attempts in a row that brought nothing new. */
const barrenAttempts = 4;

export interface DownloadOptions {
  readonly policy: Policy;
  readonly signal: AbortSignal;
  /** Milliseconds without a byte after which a connection counts as dead. */
  readonly stallAfter?: number;
  /** Milliseconds before another attempt, doubled for each one after. */
  readonly pause?: number;
}

/** What a server sends: how much there is, if it tells, and the bytes, over as many connections as it takes. */
export interface Download {
  readonly total: number | undefined;
  /** What it calls this very content, if it calls it anything. */
  readonly validator: string | undefined;
  readonly bytes: AsyncIterable<Buffer>;
}

/** How much of which content there is, and from where on it is wanted. */
interface Place {
  readonly from: number;
  readonly total: number | undefined;
  readonly validator: string | undefined;
}

/** A connection that ended before the file did, or never came about. */
class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/**
 * Asks for a file, and goes on after a connection that was cut off, from where it was, if the server has still the same.
 * @throws ZvolError `NOT_FOUND`, `PERMISSION_DENIED`, `UNAVAILABLE`
 */
export async function download(address: string, options: DownloadOptions): Promise<Download> {
  const first = await patiently(options, () => ask(address, options, undefined));
  const length = Number(first.headers['content-length'] ?? Number.NaN);
  const total = Number.isSafeInteger(length) ? length : undefined;
  const validator = validatorOf(first);
  return { total, validator, bytes: follow(address, first, { from: 0, total, validator }, options) };
}

/**
 * Asks for the rest of a file of which an earlier daemon has kept the beginning; only once somebody wants it.
 * @throws StartOver if the server has another file now, or sends no parts; else as `download`
 */
export async function* downloadRest(
  address: string,
  { bytes: from, total, validator }: Kept,
  options: DownloadOptions,
): AsyncGenerator<Buffer> {
  if (from === total) return;
  const first = await patiently(options, () => ask(address, options, { from, total, validator }));
  yield* follow(address, first, { from, total, validator }, options);
}

async function* follow(
  address: string,
  first: IncomingMessage,
  { from: start, total, validator }: Place,
  options: DownloadOptions,
): AsyncGenerator<Buffer> {
  let [response, at] = [first, start];
  for (let barren = 0; ;) {
    const before = at;
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        at += chunk.length;
        yield chunk;
      }
      if (total === undefined || at === total) return;
      if (at > total)
        throw new ZvolError(
          'UNAVAILABLE',
          `${address} sent ${at} bytes, more than the ${total} that it said`,
        );
      throw new Interrupted(`the server ended the connection after ${at} of ${total} bytes`);
    } catch (error) {
      if (options.signal.aborted) throw error;
      barren = at > before ? 0 : barren + 1;
      if (
        error instanceof ZvolError ||
        total === undefined ||
        barren >= barrenAttempts ||
        validator === undefined
      )
        throw error instanceof ZvolError
          ? error
          : new ZvolError('UNAVAILABLE', `the download of ${address} was cut off: ${wordsOf(error)}`, error);
    } finally {
      response.destroy();
    }
    await delay((options.pause ?? 1000) * 2 ** barren, undefined, { signal: options.signal });
    const from = at;
    response = await patiently(options, () => ask(address, options, { from, total, validator }));
  }
}

function validatorOf({ headers }: IncomingMessage): string | undefined {
  const { etag } = headers;
  return etag && !etag.startsWith('W/') ? etag : headers['last-modified'];
}

/** Tries again what failed on the way, not what the server refused. */
async function patiently<T>(options: DownloadOptions, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (options.signal.aborted || !(error instanceof Interrupted) || attempt === barrenAttempts) {
        throw error instanceof Interrupted ? new ZvolError('UNAVAILABLE', error.message, error) : error;
      }
      await delay((options.pause ?? 1000) * 2 ** attempt, undefined, { signal: options.signal });
    }
  }
}

interface Rest {
  readonly from: number;
  readonly total: number;
  readonly validator: string;
}

async function ask(
  address: string,
  options: DownloadOptions,
  rest: Rest | undefined,
): Promise<IncomingMessage> {
  let url = allowedUrl(options.policy, address);
  for (let redirects = 0; ; redirects += 1) {
    const response = await connect(url, options, rest);
    const { statusCode = 0, headers } = response;
    if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
      response.destroy();
      if (redirects === mostRedirects) throw new ZvolError('UNAVAILABLE', `${address} leads on and on`);
      url = allowedUrl(options.policy, new URL(headers.location, url).href);
      continue;
    }
    if (statusCode === (rest ? 206 : 200)) return wholeOrRest(url, response, rest);
    response.destroy();
    // 416: what is there now ends before that place.
    if (rest && (statusCode === 200 || statusCode === 416)) throw another(url);
    if (statusCode >= 500 || statusCode === 429)
      throw new Interrupted(`${url.href}: the server answered ${statusCode}`);
    throw new ZvolError(
      statusCode === 404 || statusCode === 410 ? 'NOT_FOUND' : 'UNAVAILABLE',
      `${url.href}: the server answered ${statusCode}`,
    );
  }
}

const another = (url: URL): StartOver =>
  new StartOver(`${url.href} can't be gone on with: the server has another file now, or sends no parts`);

/** True for a part of a file that is not the one that was asked for, which some servers send without a word. */
function isOfAnother({ headers }: IncomingMessage, { total, validator }: Rest): boolean {
  const whole = /\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1];
  if (whole !== undefined && Number(whole) !== total) return true;
  const named = validator.startsWith('"') ? headers.etag : headers['last-modified'];
  return named !== undefined && named !== validator;
}

/** @throws ZvolError `UNAVAILABLE` for bytes that are not the file's, or not those that were asked for */
function wholeOrRest(url: URL, response: IncomingMessage, rest: Rest | undefined): IncomingMessage {
  const { 'content-encoding': encoding = 'identity', 'content-range': range = '' } = response.headers;
  const from = Number(/^bytes (\d+)-/.exec(range)?.[1] ?? Number.NaN);
  const problem =
    encoding !== 'identity'
      ? `sends it packed (${encoding}), though that was not asked for`
      : rest && from !== rest.from
        ? `sends "${range}" where the bytes from ${rest.from} on were asked for`
        : undefined;
  if (problem === undefined && !(rest && isOfAnother(response, rest))) return response;
  response.destroy();
  if (problem === undefined) throw another(url);
  throw new ZvolError('UNAVAILABLE', `${url.href}: the server ${problem}`);
}

function connect(
  url: URL,
  { policy, signal, stallAfter = 60_000 }: DownloadOptions,
  rest: Rest | undefined,
): Promise<IncomingMessage> {
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const call = send(url, {
      signal,
      // Also while there is no connection yet, which the call's own does not count.
      timeout: stallAfter,
      lookup: lookupFor(policy),
      headers: {
        'accept-encoding': 'identity',
        'user-agent': 'zvold',
        ...(rest ? { range: `bytes=${rest.from}-`, 'if-range': rest.validator } : {}),
      },
    });
    call.setTimeout(stallAfter, () =>
      call.destroy(new Interrupted(`no byte came from ${url.host} for ${stallAfter / 1000} s`)),
    );
    call.once('response', resolve);
    call.once('error', (error) => {
      if (error instanceof ZvolError || error instanceof Interrupted || signal.aborted) reject(error);
      else reject(new Interrupted(`${url.host} can't be asked: ${error.message}`));
    });
    call.end();
  });
}
