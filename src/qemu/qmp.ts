import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import * as v from 'valibot';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Deadline } from '../host/deadline.ts';
import type { Commands, QmpEvent } from './qmp-schema.ts';

export type { BlockJob, Commands, JobInfo, QmpEvent, RunState } from './qmp-schema.ts';

export interface ExecuteOptions {
  /** Milliseconds for this command; 30 s unless told. */
  readonly deadline?: number;
  readonly signal?: AbortSignal;
}

/** A conversation with one running QEMU. */
export interface Qmp {
  /** QEMU's own version, from its greeting. */
  readonly version: string;
  /**
   * Runs a command that `Commands` knows.
   * @throws Failure `process` with QEMU's class and words if it refuses (`data.class`), or if it ended meanwhile;
   *   `deadline`, `interrupted`. A command whose answer was not waited for may still have been carried out.
   */
  execute<K extends keyof Commands>(
    command: K,
    ...rest: Commands[K]['arguments'] extends undefined
      ? [args?: undefined, options?: ExecuteOptions]
      : [args: Commands[K]['arguments'], options?: ExecuteOptions]
  ): Promise<Commands[K]['returns']>;
  /** Runs any other command; the caller says what comes back. */
  executeAny(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options?: ExecuteOptions,
  ): Promise<unknown>;
  /** Calls back for each event from now on; gives the way to stop that. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
  /** Events from now on, until the conversation ends; listening begins with this call, not with the first `next`. */
  events(signal?: AbortSignal): AsyncIterableIterator<QmpEvent>;
  /** Comes true when the conversation ended, whoever ended it. Never fails. */
  readonly ended: Promise<void>;
  /** Ends the conversation; pending commands fail, the machine runs on. */
  close(): void;
}

const greeting = v.object({
  QMP: v.object({
    version: v.object({ qemu: v.object({ major: v.number(), minor: v.number(), micro: v.number() }) }),
  }),
});
const message = v.union([
  v.object({ event: v.string(), data: v.optional(v.record(v.string(), v.unknown()), {}) }),
  v.object({ id: v.optional(v.number()), error: v.object({ class: v.string(), desc: v.string() }) }),
  v.object({ id: v.number(), return: v.unknown() }),
]);

const defaultDeadline = 30_000;

/**
 * Connects to the QMP socket of a running QEMU and agrees on capabilities. QEMU talks to one client at a time: while
 * another one is connected this waits, up to the deadline.
 * @throws Failure `wrong-state` if nobody listens there, `deadline`, `interrupted`, `process` if the peer isn't QMP.
 */
export async function connectQmp(
  path: string,
  options: { readonly deadline: Deadline; readonly signal: AbortSignal },
): Promise<Qmp> {
  const client = new QmpClient(path, createConnection(path));
  try {
    await client.begin({ deadline: options.deadline.left(), signal: options.signal });
    return client;
  } catch (error) {
    client.close();
    throw error;
  }
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

class QmpClient implements Qmp {
  version = '';
  readonly ended: Promise<void>;
  readonly #path: string;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeted: Promise<void>;
  #greet: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  /** Why nothing more can be said; once set, it stays. */
  #end: Failure | undefined;
  #lastId = 0;

  constructor(path: string, socket: Socket) {
    this.#path = path;
    this.#socket = socket;
    this.#greeted = new Promise<void>((resolve, reject) => (this.#greet = { resolve, reject }));
    // Nobody may be waiting for the greeting any more when the conversation ends.
    this.#greeted.catch(() => undefined);
    socket.on('error', (error) => this.#finish(connectFailure(path, error)));
    const lines = createInterface({ input: socket, crlfDelay: Infinity });
    lines.on('line', (line) => this.#receive(line));
    // readline passes the socket's error on; it is dealt with above.
    lines.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      socket.once('close', () => {
        this.#finish(new Failure('process', `QEMU ended the conversation on ${path}`, { data: { path } }));
        resolve();
      });
    });
  }

  async begin(options: { deadline: number; signal: AbortSignal }): Promise<void> {
    const started = performance.now();
    await this.#waitFor('the greeting', this.#greeted, options);
    const deadline = Math.max(0, options.deadline - (performance.now() - started));
    await this.executeAny('qmp_capabilities', undefined, { ...options, deadline });
  }

  execute<K extends keyof Commands>(
    command: K,
    ...[args, options]: [args?: Commands[K]['arguments'], options?: ExecuteOptions]
  ): Promise<Commands[K]['returns']> {
    // QEMU's schema is stable across versions (its own promise), and `Commands` is taken from it.
    return this.executeAny(command, args, options) as Promise<Commands[K]['returns']>;
  }

  async executeAny(
    command: string,
    args?: Readonly<Record<string, unknown>>,
    options: ExecuteOptions = {},
  ): Promise<unknown> {
    if (this.#end) throw this.#end;
    if (options.signal?.aborted) throw new Failure('interrupted', `interrupted before "${command}" was sent`);
    const id = ++this.#lastId;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { command, resolve, reject });
    });
    this.#socket.write(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}), id })}\n`);
    try {
      return await this.#waitFor(`"${command}"`, answer, options);
    } finally {
      this.#pending.delete(id);
    }
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  events(signal?: AbortSignal): AsyncIterableIterator<QmpEvent> {
    const waiting: QmpEvent[] = [];
    let wake: (() => void) | undefined;
    let done = this.#end !== undefined;
    const finish = (): void => {
      done = true;
      wake?.();
    };
    const stop = this.onEvent((event) => {
      waiting.push(event);
      wake?.();
    });
    void this.ended.then(finish);
    signal?.addEventListener('abort', finish, { once: true });
    async function* iterate(): AsyncGenerator<QmpEvent, undefined> {
      try {
        for (;;) {
          for (let event = waiting.shift(); event; event = waiting.shift()) yield event;
          if (done || signal?.aborted) return undefined;
          await new Promise<void>((resolve) => (wake = resolve));
        }
      } finally {
        stop();
        signal?.removeEventListener('abort', finish);
      }
    }
    return iterate();
  }

  close(): void {
    this.#finish(new Failure('process', `the conversation on ${this.#path} was ended`));
    this.#socket.destroy();
  }

  #receive(line: string): void {
    if (line.trim() === '' || this.#end) return;
    let input: unknown;
    try {
      input = JSON.parse(line);
    } catch {
      this.#breakOff(line);
      return;
    }
    if (this.#greet && v.is(greeting, input)) {
      const { major, minor, micro } = input.QMP.version.qemu;
      this.version = `${major}.${minor}.${micro}`;
      this.#greet.resolve();
      this.#greet = undefined;
      return;
    }
    const parsed = v.safeParse(message, input);
    if (!parsed.success || this.#greet) this.#breakOff(line);
    else this.#dispatch(parsed.output);
  }

  #dispatch(received: v.InferOutput<typeof message>): void {
    if ('event' in received) {
      for (const listener of this.#listeners) listener({ name: received.event, data: received.data });
      return;
    }
    // An answer to a command that nobody waits for any more is dropped.
    const pending = received.id === undefined ? undefined : this.#pending.get(received.id);
    if (!pending) return;
    if ('error' in received) {
      const { class: kind, desc } = received.error;
      pending.reject(
        new Failure('process', `QEMU refused "${pending.command}": ${desc}`, {
          data: { command: pending.command, class: kind, desc },
        }),
      );
    } else pending.resolve(received.return);
  }

  /** A peer that says what isn't QMP can't be trusted with anything after it. */
  #breakOff(line: string): void {
    const start = line.length > 100 ? `${line.slice(0, 100)}...` : line;
    this.#finish(new Failure('process', `what answers on ${this.#path} does not speak QMP: ${start}`));
    this.#socket.destroy();
  }

  #finish(why: Failure): void {
    if (this.#end) return;
    this.#end = why;
    this.#greet?.reject(why);
    for (const { reject } of this.#pending.values()) reject(why);
    this.#pending.clear();
  }

  #waitFor<T>(what: string, promise: Promise<T>, options: ExecuteOptions): Promise<T> {
    const milliseconds = options.deadline ?? defaultDeadline;
    return new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => {
        done();
        reject(new Failure('deadline', `QEMU did not answer ${what} within ${milliseconds / 1000} s`));
      }, milliseconds);
      const abort = (): void => {
        done();
        reject(new Failure('interrupted', `interrupted while waiting for QEMU to answer ${what}`));
      };
      const done = (): void => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', abort);
      };
      promise.then(resolve, reject).finally(done);
      if (options.signal?.aborted) abort();
      else options.signal?.addEventListener('abort', abort, { once: true });
    });
  }
}

function connectFailure(path: string, error: unknown): Failure {
  const absent = hasCode(error, 'ENOENT', 'ECONNREFUSED');
  return new Failure(
    absent ? 'wrong-state' : 'process',
    absent ? `no QEMU listens on ${path}` : `the conversation on ${path} broke: ${messageOf(error)}`,
    { data: { path }, cause: error },
  );
}
