import type { Readable, Writable } from 'node:stream';
import type { Link } from '../agent/link.ts';
import { FrameType, inputWindow, maxData, ProtocolError } from '../agent/protocol.ts';
import type { ExecRequest, Exit, Frame, Refusal } from '../agent/protocol.ts';
import { Failure } from '../core/errors.ts';
import type { Deadline } from '../host/deadline.ts';
import { hints, interrupted } from './agent-connect.ts';

/** Where a command's streams go. */
export interface CommandStreams {
  /** Nothing, if left out: the command reads the end of its input at once. */
  readonly stdin?: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

export interface CommandOptions {
  readonly name: string;
  readonly streams: CommandStreams;
  readonly signal: AbortSignal;
  /** None, if left out. */
  readonly deadline?: Deadline | undefined;
  /** Milliseconds an interrupted command gets to end by itself; 0 cuts it off. */
  readonly grace: number;
}

/** Thrown when the reader of the command's output has gone (`| head`): no failure, and the command was hung up on. */
export class ReaderGone extends Error {
  override readonly name = 'ReaderGone';
}

/**
 * Runs one command over an open connection and gives its exit.
 * @throws Failure `guest` if the connection is lost or the agent refuses, `deadline`, `interrupted`; ReaderGone.
 */
export async function runOver(link: Link, request: ExecRequest, options: CommandOptions): Promise<Exit> {
  const cleanups: (() => void)[] = [];
  try {
    return await new Promise<Exit>((resolve, reject) => {
      const { stdin } = options.streams;
      link.sendJson(FrameType.request, request);
      const input = stdin ? pumpInput(link, stdin) : endedInput(link);
      cleanups.push(
        input.stop,
        limitTime(link, request, options, reject),
        carryOutput(link, options.streams, reject),
      );
      link.onFrame((frame) => takeFrame(frame, options, input.credit, resolve, reject));
      link.socket.once('close', () =>
        reject(options.signal.aborted ? interrupted(options) : connectionLost(options.name, request)),
      );
    });
  } finally {
    for (const cleanup of cleanups) cleanup();
    link.socket.destroy();
  }
}

function takeFrame(
  { type, payload }: Frame,
  { name, streams }: CommandOptions,
  credit: (bytes: number) => void,
  resolve: (exit: Exit) => void,
  reject: (error: Error) => void,
): void {
  switch (type) {
    case FrameType.stdout:
      return void streams.stdout.write(payload);
    case FrameType.stderr:
      return void streams.stderr.write(payload);
    case FrameType.credit:
      return credit(payload.readUInt32BE(0));
    case FrameType.exit:
      return resolve(JSON.parse(payload.toString()) as Exit);
    case FrameType.refusal:
      return reject(refused(name, JSON.parse(payload.toString()) as Refusal));
    case FrameType.answer:
    case FrameType.request:
    case FrameType.stdin:
    case FrameType.stdinEnd:
    case FrameType.signal:
      throw new ProtocolError('an answer that nobody asked for');
    default:
      return type satisfies never;
  }
}

/** Leaves the socket unread while one of the outputs is full; a broken output ends the command. */
function carryOutput(
  link: Link,
  { stdout, stderr }: CommandStreams,
  reject: (error: Error) => void,
): () => void {
  const outputs = [...new Set([stdout, stderr])];
  const check = (): void => {
    if (outputs.some((output) => output.writableNeedDrain)) link.socket.pause();
    else link.socket.resume();
  };
  const broken = (error: NodeJS.ErrnoException): void => {
    const readerGone = error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED';
    reject(
      readerGone ? new ReaderGone() : new Failure('files', `the output can't be written: ${error.message}`),
    );
  };
  // After the link's own listener, so that what it wrote is counted.
  queueMicrotask(() => link.socket.on('data', check));
  for (const output of outputs) output.on('drain', check).on('error', broken);
  return () => {
    for (const output of outputs) output.off('drain', check).off('error', broken);
  };
}

interface Input {
  readonly credit: (bytes: number) => void;
  readonly stop: () => void;
}

function endedInput(link: Link): Input {
  link.send(FrameType.stdinEnd);
  return { credit: () => undefined, stop: () => undefined };
}

/** Sends a stream as the command's input, as fast as the command takes it, holding one chunk of it at most. */
function pumpInput(link: Link, source: Readable): Input {
  let credit = inputWindow;
  let waiting: Buffer = Buffer.alloc(0);
  let state: 'open' | 'ended' | 'closed' = 'open';
  const pump = (): void => {
    while (waiting.length > 0 && credit > 0 && !link.socket.writableNeedDrain) {
      const piece = waiting.subarray(0, Math.min(maxData, credit));
      link.send(FrameType.stdin, piece);
      credit -= piece.length;
      waiting = waiting.subarray(piece.length);
    }
    if (waiting.length > 0) source.pause();
    else if (state === 'open') source.resume();
    else if (state === 'ended') {
      state = 'closed';
      link.send(FrameType.stdinEnd);
    }
  };
  const take = (chunk: Buffer | string): void => {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    waiting = waiting.length > 0 ? Buffer.concat([waiting, bytes]) : bytes;
    pump();
  };
  const end = (): void => {
    if (state === 'open') state = 'ended';
    pump();
  };
  source.on('data', take).on('end', end).on('error', end).on('close', end);
  link.socket.on('drain', pump);
  if (source.readableEnded || source.destroyed) end();
  else pump();
  return {
    credit: (bytes) => {
      credit += bytes;
      pump();
    },
    stop: () => {
      state = 'closed';
      source.off('data', take).off('end', end).off('close', end);
      // Paused, a standard input no longer keeps this process from ending.
      source.pause();
    },
  };
}

/** Ends the wait by deadline, or by the signal: politely first, if there is a grace. */
function limitTime(
  link: Link,
  request: ExecRequest,
  { name, deadline, signal, grace }: CommandOptions,
  reject: (error: Error) => void,
): () => void {
  const timers: NodeJS.Timeout[] = [];
  const cutOff = (): void => {
    if (grace === 0) return reject(interrupted({ name }));
    link.send(FrameType.signal, Buffer.from('SIGINT'));
    timers.push(setTimeout(() => reject(interrupted({ name })), grace));
  };
  if (deadline) {
    const late = `${request.argv[0] ?? 'the command'} did not end within ${deadline.total / 1000} s in "${name}"`;
    timers.push(setTimeout(() => reject(new Failure('deadline', late)), deadline.left()));
  }
  if (signal.aborted) cutOff();
  else signal.addEventListener('abort', cutOff, { once: true });
  return () => {
    timers.forEach((timer) => clearTimeout(timer));
    signal.removeEventListener('abort', cutOff);
  };
}

export function refused(name: string, { message, step }: Refusal): Failure {
  return new Failure('guest', `the agent of "${name}" can't do it: ${message}`, {
    ...hints({ name }),
    data: { channel: 'refused', ...(step === undefined ? {} : { step }) },
  });
}

export function connectionLost(
  name: string,
  request: { readonly kind: string; readonly argv?: readonly string[] },
): Failure {
  const what = request.argv?.[0] ?? `"${request.kind}"`;
  return new Failure('guest', `the connection to "${name}" was lost while ${what} ran`, {
    detail: 'the machine stopped, its agent started over, or what runs there was forked from a saved state',
    ...hints({ name }),
    data: { channel: 'connection-lost' },
  });
}
