import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** How a server gives a file. */
export interface Behaviour {
  readonly content: Buffer;
  /** An ETag of the content unless told; null for none. */
  readonly etag?: string | null;
  /** Whether it can send a part; it can unless told. */
  readonly ranges?: boolean;
  /** Sends a part of what it has, whatever it is wanted of. */
  readonly careless?: boolean;
  /** Ends the connection after so many bytes of the answer. */
  readonly cutAfter?: number;
  /** Sends so many bytes of the answer, and nothing more. */
  readonly stallAfter?: number;
  /** The length that it announces, where that isn't the content's. */
  readonly announced?: number;
  readonly status?: number;
  /** Answers the first request with the way to another path. */
  readonly redirects?: boolean;
}

export interface FileServer {
  readonly url: string;
  /** Of each request so far: its range and the state it wants it of, `whole` without a range. */
  readonly requests: string[];
  /** Bytes of bodies that were handed to the network so far. */
  readonly sent: () => number;
  /** How it answers from now on: the first request by the first, and those after the last by that. */
  behave(...answers: readonly Behaviour[]): void;
  close(): Promise<void>;
}

/** A web server on a loopback port that has one file, and trouble. */
export async function fileServer(...first: readonly Behaviour[]): Promise<FileServer> {
  let answers = [...first];
  let sent = 0;
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const [behaviour] = answers;
    if (!behaviour) throw new Error('a request that no test told the answer to');
    if (behaviour.redirects && request.url === '/disk.img') {
      response.writeHead(302, { location: '/elsewhere/disk.img' }).end();
      return;
    }
    const { range, 'if-range': condition } = request.headers;
    requests.push(range === undefined ? 'whole' : `${range} of ${String(condition)}`);
    if (answers.length > 1) answers.shift();
    answer(request, response, behaviour, (bytes) => (sent += bytes));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/disk.img`,
    requests,
    sent: () => sent,
    behave: (...next) => {
      answers = [...next];
    },
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { content, etag, ranges = true, careless = false, cutAfter, stallAfter, announced, status }: Behaviour,
  told: (bytes: number) => void,
): void {
  if (status !== undefined) {
    response.writeHead(status).end('no');
    return;
  }
  const tag = etag === undefined ? `"${createHash('sha256').update(content).digest('hex')}"` : etag;
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const isPart = start > 0 && ranges && (careless || request.headers['if-range'] === tag);
  const body = isPart ? content.subarray(start) : content;
  response.writeHead(isPart ? 206 : 200, {
    'content-length': announced ?? body.length,
    ...(tag === null ? {} : { etag: tag }),
    ...(isPart ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {}),
  });
  const limit = cutAfter ?? stallAfter;
  if (limit === undefined) {
    told(body.length);
    response.end(body);
    return;
  }
  told(limit);
  response.write(body.subarray(0, limit), () => {
    // What was written arrives before the end does.
    if (cutAfter !== undefined) response.socket?.destroySoon();
  });
}
