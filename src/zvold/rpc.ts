import {
  status,
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { once } from 'node:events';
import { ZvolError, wordsOf } from './errors.ts';
import { within } from './stall.ts';

/** A message as the library reads it: all fields there, 64 bit numbers as numbers, enums by name. */
export type Message = Readonly<Record<string, unknown>>;

export interface Rpc {
  /** For what nobody foresaw; the client is told only that it happened. */
  readonly report: (words: string) => void;
}

/** Characters of an answer: HTTP/2 has 64 KiB for it, each character that is none of ASCII's takes nine, and who gets more gets nothing. */
const longestDetails = 6_000;

function detailsOf(words: string): string {
  return words.length > longestDetails ? `${words.slice(0, longestDetails)} ...` : words;
}

/** What a handler threw, as a client is told. */
function answerOf(error: unknown, { report }: Rpc): { code: status; details: string } {
  if (error instanceof ZvolError) return { code: status[error.code], details: detailsOf(error.message) };
  if (error instanceof Error && (error.name === 'AbortError' || isClientGone(error)))
    return { code: status.CANCELLED, details: 'ended' };
  report(error instanceof Error ? (error.stack ?? error.message) : String(error));
  const details = detailsOf(`zvold met something that it did not expect: ${wordsOf(error)}`);
  return { code: status.INTERNAL, details };
}

/** What is thrown by a stream whose client went, or sent what is no message. */
function isClientGone(error: Error): boolean {
  return 'code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE';
}

/** Answers a call; the signal is aborted when its client calls it off before it was answered. */
export function unary(
  rpc: Rpc,
  work: (request: Message, signal: AbortSignal) => Promise<object>,
): handleUnaryCall<Message, object> {
  return (call, callback) => {
    const controller = new AbortController();
    call.once('cancelled', () => controller.abort());
    // Also what is thrown before there is anything to wait for.
    void (async () => work(call.request, controller.signal))().then(
      (response) => callback(null, response),
      (error: unknown) => callback(answerOf(error, rpc)),
    );
  };
}

/**
 * Sends what `work` gives, as fast as the client takes it; the signal ends it when the client goes.
 * @param stallAfter milliseconds after which a client that takes nothing is given up; never without.
 */
export function streaming(
  rpc: Rpc,
  work: (request: Message, signal: AbortSignal) => AsyncIterable<object>,
  stallAfter?: number,
): handleServerStreamingCall<Message, object> {
  return (call) => {
    const controller = new AbortController();
    call.once('cancelled', () => controller.abort());
    call.once('close', () => controller.abort());
    sendAll(call, work(call.request, controller.signal), controller.signal, stallAfter).then(
      () => call.end(),
      (error: unknown) => call.emit('error', answerOf(error, rpc)),
    );
  };
}

async function sendAll(
  call: ServerWritableStream<Message, object>,
  messages: AsyncIterable<object>,
  signal: AbortSignal,
  after: number | undefined,
): Promise<void> {
  for await (const message of messages) {
    if (signal.aborted) return;
    if (call.write(message)) continue;
    const taken = once(call, 'drain', { signal });
    await (after === undefined ? taken : within(taken, { after, signal, idle: 'the client took nothing' }));
  }
}

/** Takes what a client sends; the signal is aborted when the client goes before it was answered. */
export function receiving(
  rpc: Rpc,
  work: (messages: AsyncIterable<Message>, signal: AbortSignal) => Promise<object>,
): handleClientStreamingCall<Message, object> {
  return (call, callback) => {
    const controller = new AbortController();
    call.once('cancelled', () => controller.abort());
    void (async () => work(call as AsyncIterable<Message>, controller.signal))().then(
      (response) => callback(null, response),
      (error: unknown) => callback(answerOf(error, rpc)),
    );
  };
}

export type Handlers = UntypedServiceImplementation & Record<string, Handler>;
type Handler =
  | handleUnaryCall<Message, object>
  | handleServerStreamingCall<Message, object>
  | handleClientStreamingCall<Message, object>
  | handleBidiStreamingCall<Message, object>;

export const text = (message: Message, field: string): string => (message[field] as string | undefined) ?? '';
export const flag = (message: Message, field: string): boolean => message[field] === true;
export const number = (message: Message, field: string): number => Number(message[field] ?? 0);

/** A field that may be left out; the library names those in `_field`. */
export function optional(message: Message, field: string): number | undefined {
  return message[`_${field}`] === field ? number(message, field) : undefined;
}
