import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { Readable, Writable, type Duplex } from 'node:stream';
import { FrameType, ProtocolError } from '../agent/protocol.ts';
import type { Adoption, GuestFacts, Refusal, Request } from '../agent/protocol.ts';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { connectionLost, ReaderGone, refused, runOver } from './agent-command.ts';
import { connectAgent, interrupted, type AgentTarget, type Patience } from './agent-connect.ts';
import type { RunInGuest } from './agent-copy.ts';
import type { Channel, ExecOptions, ExecResult } from './channel.ts';

export type { AgentTarget, Patience } from './agent-connect.ts';
export type { Adoption, GuestFacts } from '../agent/protocol.ts';

export interface AgentChannelTarget extends AgentTarget {
  /** Used for terminals. */
  readonly fallback: Channel;
  /** Milliseconds to wait for the agent before a command; 30 s if left out. */
  readonly connectWithin?: number;
  /** This process's own streams, unless a test has others. */
  readonly streams?: { readonly stdin: Readable; readonly stdout: Writable; readonly stderr: Writable };
}

export interface AgentExecOptions extends ExecOptions {
  /** Added to root's environment in the guest. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** A Channel that can give a command an environment and a folder without a process more. */
export interface AgentChannel extends Channel {
  exec(argv: readonly string[], options: AgentExecOptions): Promise<ExecResult>;
}

/** The most that `exec` collects of one stream, as in host/process.ts. */
const maxOutput = 64 * 1024 * 1024;
/** Milliseconds a command has to end after Ctrl-C before it is hung up on. */
const interruptGrace = 5_000;
/** What a shell gives for a command whose reader has gone: 128 + SIGPIPE. */
const readerGoneCode = 141;

/** The channel through the agent in the guest: a command costs one process there. Terminals go through `fallback`. */
export function agentChannel(ctx: Pick<Context, 'env'>, target: AgentChannelTarget): AgentChannel {
  const { name, fallback, connectWithin = 30_000 } = target;
  const run: RunInGuest = async (request, { deadline: milliseconds, ...options }) => {
    // Many commands at once share one signal, and Node would take their listeners for a leak.
    setMaxListeners(0, options.signal);
    const deadline = milliseconds > 0 ? deadlineIn(milliseconds) : undefined;
    const within = deadlineIn(Math.min(connectWithin, deadline?.total ?? Infinity));
    const link = await connectAgent(target, { deadline: within, signal: options.signal });
    return (await runOver(link, request, { ...options, name, deadline })).code;
  };
  return {
    exec: async (argv, { deadline, signal, input, env, cwd }) => {
      const [stdout, stderr] = [collector(argv), collector(argv)];
      const streams = { stdout: stdout.stream, stderr: stderr.stream, ...stdinOf(input) };
      const extra = { ...(env ? { env } : {}), ...(cwd === undefined ? {} : { cwd }) };
      const exitCode = await run({ kind: 'exec', argv, ...extra }, { streams, deadline, signal, grace: 0 });
      return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
    },
    attach: async (argv, { tty, signal }) => {
      if (tty) return fallback.attach(argv, { tty, signal });
      const words = argv.length > 0 ? argv : ['bash', '--login'];
      const streams = target.streams ?? process;
      try {
        const code = await run(
          { kind: 'exec', argv: words },
          { streams, deadline: 0, signal, grace: interruptGrace },
        );
        if (signal.aborted) throw interrupted(target);
        await Promise.all([flushed(streams.stdout), flushed(streams.stderr)]);
        return code;
      } catch (error) {
        if (error instanceof ReaderGone) return readerGoneCode;
        throw error;
      }
    },
    // Read only when something is copied: it brings what starts processes on the host.
    copyIn: async (...what) => (await import('./agent-copy.ts')).copyIn(ctx, name, run, ...what),
    copyOut: async (...what) => (await import('./agent-copy.ts')).copyOut(ctx, name, run, ...what),
    connect: (path, signal) => leadTo(target, path, { deadline: deadlineIn(connectWithin), signal }),
    close: () => fallback.close(),
  };
}

/**
 * Makes a machine forked from saved memory its own; `target.secret` is the saved machine's, `adoption.agentKey` holds
 * from the next connection on. The guest's clock is set to this host's. May be asked again after a failure.
 * @throws Failure `guest`, its data naming the step that failed; `deadline`; `interrupted`.
 */
export async function adoptFork(
  target: AgentTarget,
  adoption: Omit<Adoption, 'time'>,
  patience: Patience,
): Promise<GuestFacts> {
  // The time is taken when the connection stands: waiting for it must not make the guest's clock late.
  return ask(target, () => ({ kind: 'adopt', ...adoption, time: Date.now() }), patience);
}

/**
 * Sets the clock of a machine that stood still to this host's, and gives it new random numbers; the answer also tells that
 * its agent works. @throws Failure as `adoptFork`
 */
export async function awakenGuest(target: AgentTarget, patience: Patience): Promise<GuestFacts> {
  const entropy = randomBytes(64).toString('hex');
  return ask(target, () => ({ kind: 'awaken', entropy, time: Date.now() }), patience);
}

/** Uptime, pools, load, memory and disk of a guest, without a process in it. @throws Failure as `adoptFork` */
export async function askFacts(target: AgentTarget, patience: Patience): Promise<GuestFacts> {
  return ask(target, () => ({ kind: 'facts' }), patience);
}

/** A connection to a socket in the guest, whose first bytes have to be the caller's. */
async function leadTo(target: AgentTarget, path: string, patience: Patience): Promise<Duplex> {
  const link = await connectAgent(target, patience);
  return new Promise<Duplex>((resolve, reject) => {
    const lost = (): void => reject(connectionLost(target.name, { kind: 'connect' }));
    link.socket.once('close', lost);
    link.onFrame(({ type, payload }) => {
      link.socket.off('close', lost);
      if (type === FrameType.answer) return resolve(link.release());
      link.socket.destroy();
      if (type === FrameType.refusal) reject(refused(target.name, JSON.parse(payload.toString()) as Refusal));
      else throw new ProtocolError('an answer that nobody asked for');
    });
    link.sendJson(FrameType.request, { kind: 'connect', path });
  });
}

async function ask(
  target: AgentTarget,
  request: () => Request,
  { deadline, signal }: Patience,
): Promise<GuestFacts> {
  const link = await connectAgent(target, { deadline, signal });
  const asked = request();
  const late = `the agent of "${target.name}" did not answer within ${Math.round(deadline.total / 1000)} s`;
  let timer: NodeJS.Timeout | undefined;
  let abort = (): void => undefined;
  try {
    return await new Promise<GuestFacts>((resolve, reject) => {
      abort = () => reject(interrupted(target));
      signal.addEventListener('abort', abort, { once: true });
      timer = setTimeout(() => reject(new Failure('deadline', late)), deadline.left());
      link.onFrame(({ type, payload }) => {
        if (type === FrameType.answer) resolve(JSON.parse(payload.toString()) as GuestFacts);
        else if (type === FrameType.refusal)
          reject(refused(target.name, JSON.parse(payload.toString()) as Refusal));
        else throw new ProtocolError('an answer that nobody asked for');
      });
      link.socket.once('close', () => reject(connectionLost(target.name, asked)));
      link.sendJson(FrameType.request, asked);
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    link.socket.destroy();
  }
}

function stdinOf(input: string | Uint8Array | undefined): { stdin?: Readable } {
  if (input === undefined) return {};
  // In a list, since a bare Uint8Array would be taken for a list of numbers.
  return { stdin: Readable.from([typeof input === 'string' ? Buffer.from(input) : Buffer.from(input)]) };
}

/** Keeps what is written, up to a limit; its text comes without the last line feed, as host/process.ts gives it. */
function collector(argv: readonly string[]): { stream: Writable; text: () => string } {
  const chunks: Buffer[] = [];
  let size = 0;
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      size += chunk.length;
      if (size > maxOutput) return done(new Error(`${argv[0] ?? ''} wrote more than 64 MiB`));
      chunks.push(chunk);
      done();
    },
  });
  stream.on('error', () => undefined);
  return {
    stream,
    text: () =>
      Buffer.concat(chunks)
        .toString('utf8')
        .replace(/\r?\n$/, ''),
  };
}

/** Waits until all that was written has left this process, or can't. */
function flushed(stream: Writable): Promise<void> {
  return new Promise((resolve) => {
    if (stream.writableLength === 0) resolve();
    else stream.write('', () => resolve());
  });
}
