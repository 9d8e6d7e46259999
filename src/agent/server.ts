import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { adopt, awaken, StepError } from './adopt.ts';
import { leadTo } from './connect.ts';
import { under, type AgentConfig } from './config.ts';
import { runCommand } from './exec.ts';
import { readFacts } from './facts.ts';
import {
  hello,
  helloWithoutSecret,
  isProof,
  nonceLength,
  parseSecret,
  proofLength,
  prove,
} from './handshake.ts';
import { KernelCalls } from './kernel-calls.ts';
import { Link } from './link.ts';
import { PipePool } from './pipes.ts';
import { FrameType, requestLimits, type Frame, type Refusal, type Request } from './protocol.ts';
import { parseRequest } from './requests.ts';

export const keyFile = '/etc/zfsdev/agent.key';

/** What the connections of one agent share. */
interface Agent {
  readonly config: AgentConfig;
  readonly pipes: PipePool;
  readonly kernel: KernelCalls;
  /** Changes at each adoption: forks of one saved memory must not go on drawing the same nonces. */
  salt: string;
  strangers: number;
}

/** Starts to listen. Every request comes on a connection of its own. */
export function startAgent(config: AgentConfig): Server {
  const agent: Agent = {
    config,
    pipes: new PipePool(),
    kernel: new KernelCalls(),
    salt: '',
    strangers: 0,
  };
  const server = createServer({ noDelay: true }, (socket) => {
    // A connection's trouble is its own; `close` follows and tidies up.
    socket.on('error', () => undefined);
    if (agent.strangers >= config.strangers) socket.destroy();
    else welcome(agent, socket);
  });
  server.listen({ port: config.port, host: config.address, backlog: 511 }, () => void agent.pipes.start());
  return server;
}

/** Lets the connection prove itself, and hands it on; it has one deadline for that and for its request. */
function welcome(agent: Agent, socket: Socket): void {
  agent.strangers += 1;
  const timer = setTimeout(() => socket.destroy(), agent.config.handshakeDeadline);
  const known = (): void => {
    agent.strangers -= 1;
    clearTimeout(timer);
    socket.off('close', known);
  };
  socket.on('close', known);
  const secret = readSecret(agent.config);
  const proofOffset = hello.length + nonceLength;
  let received: Buffer = Buffer.alloc(0);
  let expected: Buffer | undefined;
  const take = (chunk: Buffer): void => {
    received = Buffer.concat([received, chunk]);
    if (!received.subarray(0, hello.length).equals(hello.subarray(0, received.length)))
      return void socket.destroy();
    if (received.length < proofOffset) return;
    if (secret === undefined) return void socket.end(helloWithoutSecret);
    if (expected === undefined) {
      const hostNonce = received.subarray(hello.length, proofOffset);
      const agentNonce = freshNonce(agent.salt);
      expected = prove(secret, 'host', hostNonce, agentNonce);
      socket.write(Buffer.concat([hello, agentNonce, prove(secret, 'agent', hostNonce, agentNonce)]));
    }
    if (received.length < proofOffset + proofLength) return;
    if (!isProof(received.subarray(proofOffset, proofOffset + proofLength), expected))
      return void socket.destroy();
    socket.off('data', take);
    serve(agent, new Link(socket, requestLimits, received.subarray(proofOffset + proofLength)), known);
  };
  socket.on('data', take);
}

/** Read at each connection: an adoption replaces it, and so does the seed at a boot. */
function readSecret(config: AgentConfig): Buffer | undefined {
  try {
    return parseSecret(readFileSync(under(config, keyFile), 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * Forks of one saved memory share the state of every random generator in it until the kernel's is reseeded, and this
 * process's own for longer. The clock's nanoseconds and, after the adoption, its entropy tell them apart.
 */
function freshNonce(salt: string): Buffer {
  return createHash('sha256')
    .update(randomBytes(32))
    .update(`${process.hrtime.bigint()} ${salt}`)
    .digest()
    .subarray(0, nonceLength);
}

/** Waits for the request and carries it out; `known` ends the deadline. */
function serve(agent: Agent, link: Link, known: () => void): void {
  let handle = (frame: Frame): void => {
    known();
    handle = () => undefined;
    const arrived = performance.now();
    try {
      if (frame.type !== FrameType.request) throw new Error('the first frame is the request');
      const request = parseRequest(frame.payload);
      if (request.kind === 'exec') handle = runCommand(link, request, agent);
      else if (request.kind === 'connect') leadTo(link, request.path, (error) => refuse(link, error));
      else void reply(agent, link, request, arrived);
    } catch (error) {
      refuse(link, error);
    }
  };
  link.onFrame((frame) => handle(frame));
}

async function reply(
  agent: Agent,
  link: Link,
  request: Exclude<Request, { kind: 'exec' | 'connect' }>,
  arrived: number,
): Promise<void> {
  try {
    if (request.kind === 'adopt') {
      await adopt(agent, request, arrived);
      agent.salt = request.entropy;
    }
    if (request.kind === 'awaken') {
      await awaken(agent, request, arrived);
      agent.salt = request.entropy;
    }
    link.sendJson(FrameType.answer, readFacts(agent.config));
    link.socket.end();
  } catch (error) {
    refuse(link, error);
  }
}

function refuse(link: Link, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  const refusal: Refusal = { message, ...(error instanceof StepError ? { step: error.step } : {}) };
  link.sendJson(FrameType.refusal, refusal);
  link.socket.end();
}
