import {
  credentials,
  loadPackageDefinition,
  type ChannelCredentials,
  type Client,
  type ClientReadableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

export type Answer = Record<string, unknown>;

/** A client that knows nothing but a published contract. */
export interface GeneratedClient {
  /** One call. @throws ServiceError */
  readonly ask: (method: string, request?: object) => Promise<Answer>;
  /** A call with a stream of answers; nothing is read of it until somebody does. */
  stream(method: string, request?: object): ClientReadableStream<Answer>;
  /** That, read as it comes. */
  watch(method: string): Watching;
  close(): void;
}

/** What a stream has told so far. */
export interface Watching {
  readonly answers: readonly Answer[];
  /** Waits for an answer, also one that came before. @throws Error with all that came, if the stream ends without it */
  until(isIt: (answer: Answer) => boolean): Promise<Answer>;
  end(): void;
}

type Methods = Record<string, (...words: unknown[]) => unknown>;

/**
 * Makes a client of a .proto file and of nothing else; numbers are numbers, enums their names, and what an answer leaves out is
 * there as its default.
 * @param service its full name. @param target as gRPC has it: `unix:/PATH` or `HOST:PORT`
 */
export function generatedClient(
  file: string,
  service: string,
  target: string,
  channel: ChannelCredentials = credentials.createInsecure(),
): GeneratedClient {
  const definition = loadSync(file, { longs: Number, enums: String, defaults: true });
  const made = service
    .split('.')
    .reduce<unknown>((place, word) => (place as Answer)[word], loadPackageDefinition(definition));
  const client = new (made as new (...words: unknown[]) => Client)(target, channel);
  const methods = client as unknown as Methods;
  const call = (method: string, ...words: unknown[]): unknown => {
    const found = methods[method];
    if (!found) throw new Error(`${file} has no ${method}`);
    return found.call(client, ...words);
  };
  const stream = (method: string, request: object = {}): ClientReadableStream<Answer> =>
    call(method, request) as ClientReadableStream<Answer>;
  return {
    ask: (method, request = {}) =>
      new Promise((done, failed) => {
        call(method, request, (error: ServiceError | null, answer: Answer) =>
          error ? failed(error) : done(answer),
        );
      }),
    stream,
    watch: (method) => watching(stream(method)),
    close: () => client.close(),
  };
}

function watching(stream: ClientReadableStream<Answer>): Watching {
  const answers: Answer[] = [];
  const looks = new Set<() => void>();
  let over: string | undefined;
  const told = (): void => looks.forEach((look) => look());
  const ended = (why: string): void => {
    over ??= why;
    told();
  };
  stream.on('data', (answer: Answer) => {
    answers.push(answer);
    told();
  });
  stream.on('error', (error) => ended(error.message));
  stream.on('end', () => ended('it ended'));
  return {
    answers,
    until: (isIt) =>
      new Promise((done, failed) => {
        const look = (): void => {
          const found = answers.find(isIt);
          if (found) done(found);
          else if (over !== undefined) failed(new Error(`${over}, after ${JSON.stringify(answers)}`));
          else return;
          looks.delete(look);
        };
        looks.add(look);
        look();
      }),
    end: () => stream.cancel(),
  };
}
