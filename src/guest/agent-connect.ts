import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import {
  hello,
  helloWithoutSecret,
  isProof,
  nonceLength,
  parseSecret,
  proofLength,
  prove,
} from '../agent/handshake.ts';
import { Link } from '../agent/link.ts';
import { answerLimits } from '../agent/protocol.ts';
import { Failure } from '../core/errors.ts';
import type { Deadline } from '../host/deadline.ts';

/** Where an instance's agent is reached, and how it is known. */
export interface AgentTarget {
  readonly name: string;
  /** The loopback port of the host that QEMU forwards to the agent. */
  readonly port: number;
  /** The shared secret, 64 hexadecimal digits; asked for at each connection. */
  readonly secret: () => string;
}

export interface Patience {
  readonly deadline: Deadline;
  readonly signal: AbortSignal;
}

/**
 * What an attempt came to. QEMU accepts for the guest before the guest does, so a connection that is closed or silent
 * says no more than 'not yet'; `refused` says that not even QEMU listens.
 */
type Attempt =
  | { readonly kind: 'open'; readonly link: Link }
  | { readonly kind: 'not-yet' | 'refused' | 'wrong-secret' | 'no-secret' | 'stranger' };

/** QEMU listens from its first moment on: so many milliseconds of refusals mean that there is no machine. */
const refusedLongEnough = 2_000;
const firstPatience = 400;
const longestPatience = 5_000;

/**
 * An authenticated connection to the agent. Tries again, with short pauses, until the deadline.
 * @throws Failure `guest` if it is not there in time, or is another machine's; `interrupted`.
 */
export async function connectAgent(target: AgentTarget, { deadline, signal }: Patience): Promise<Link> {
  const secret = parseSecret(target.secret());
  if (!secret)
    throw new Failure(
      'files',
      `the key of the command channel of "${target.name}" is damaged`,
      hints(target),
    );
  const began = performance.now();
  for (let patience = firstPatience, pause = 5; ; pause = Math.min(pause * 1.5, 100)) {
    if (signal.aborted) throw interrupted(target);
    const began1 = performance.now();
    const attempt = await tryOnce(
      target.port,
      secret,
      Math.min(patience, Math.max(1, deadline.left())),
      signal,
    );
    if (attempt.kind === 'open') return attempt.link;
    if (attempt.kind !== 'not-yet' && attempt.kind !== 'refused') throw unacceptable(target, attempt.kind);
    if (signal.aborted) throw interrupted(target);
    const gone = attempt.kind === 'refused' && performance.now() - began > refusedLongEnough;
    if (gone || deadline.left() === 0) throw notReachable(target, attempt.kind);
    // Silent until the patience ended: a slow guest gets more of it next time.
    if (performance.now() - began1 >= patience) patience = Math.min(patience * 2, longestPatience);
    await delay(Math.min(pause, deadline.left()), undefined, { signal }).catch(() => undefined);
  }
}

function tryOnce(port: number, secret: Buffer, patience: number, signal: AbortSignal): Promise<Attempt> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    const settle = (attempt: Attempt): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', giveUp);
      socket.removeAllListeners('close').removeAllListeners('error').removeAllListeners('data');
      // From here on errors are followed by `close`, which the link's user watches.
      socket.on('error', () => undefined);
      if (attempt.kind === 'open') socket.pause();
      else socket.destroy();
      resolve(attempt);
    };
    const giveUp = (): void => settle({ kind: 'not-yet' });
    const timer = setTimeout(giveUp, patience);
    signal.addEventListener('abort', giveUp, { once: true });
    socket.on('error', (error: NodeJS.ErrnoException) =>
      settle({ kind: error.code === 'ECONNREFUSED' ? 'refused' : 'not-yet' }),
    );
    socket.on('close', giveUp);
    shakeHands(socket, secret, settle);
  });
}

function shakeHands(socket: Socket, secret: Buffer, settle: (attempt: Attempt) => void): void {
  const nonce = randomBytes(nonceLength);
  socket.write(Buffer.concat([hello, nonce]));
  let received: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    const greeting = received.subarray(0, hello.length);
    if (greeting.equals(helloWithoutSecret)) return settle({ kind: 'no-secret' });
    const isHello = greeting.equals(hello.subarray(0, greeting.length));
    const mayBecomeOther = greeting.equals(helloWithoutSecret.subarray(0, greeting.length));
    if (!isHello && !mayBecomeOther) return settle({ kind: 'stranger' });
    const length = hello.length + nonceLength + proofLength;
    if (received.length < length) return;
    const agentNonce = received.subarray(hello.length, hello.length + nonceLength);
    const claim = received.subarray(hello.length + nonceLength, length);
    if (!isProof(claim, prove(secret, 'agent', nonce, agentNonce))) return settle({ kind: 'wrong-secret' });
    socket.write(prove(secret, 'host', nonce, agentNonce));
    settle({ kind: 'open', link: new Link(socket, answerLimits, received.subarray(length)) });
  });
}

/** What to type when a guest's channel is in trouble. */
export function hints({ name }: { readonly name: string }): { hint: string } {
  return { hint: `zfsdev inspect ${name} tells its state, zfsdev logs ${name} shows its console` };
}

export function interrupted({ name }: { readonly name: string }): Failure {
  return new Failure('interrupted', `interrupted while talking to "${name}"`);
}

function notReachable(target: AgentTarget, kind: 'not-yet' | 'refused'): Failure {
  const why =
    kind === 'refused'
      ? `nothing listens on its port ${target.port}: the machine is not running`
      : 'its agent gives no answer: the guest is not up yet, or it hangs';
  return new Failure('guest', `the command channel of "${target.name}" can't be reached`, {
    detail: why,
    ...hints(target),
    data: { channel: 'not-reachable', port: target.port },
  });
}

function unacceptable(target: AgentTarget, kind: 'wrong-secret' | 'no-secret' | 'stranger'): Failure {
  const why = {
    'wrong-secret':
      "it doesn't know this machine's secret: another machine's agent, or a key that was exchanged",
    'no-secret': 'the agent in the guest has no secret: /etc/zfsdev/agent.key is missing or damaged there',
    stranger: 'what listens there is no agent of this version of zfsdev',
  }[kind];
  return new Failure('guest', `the command channel of "${target.name}" is not trusted`, {
    detail: `port ${target.port}: ${why}`,
    hint: `zfsdev stop ${target.name} && zfsdev start ${target.name} gives it a new key and a new agent`,
    data: { channel: kind, port: target.port },
  });
}
