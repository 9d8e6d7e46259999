import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Socket } from 'node:net';
import { under, type AgentConfig } from './config.ts';
import type { Link } from './link.ts';
import type { PipePool, StandardPipes } from './pipes.ts';
import { FrameType, inputWindow, maxData, ProtocolError } from './protocol.ts';
import type { ExecRequest, Exit, Frame } from './protocol.ts';

/** What a login of root has. */
const loginEnvironment = {
  USER: 'root',
  LOGNAME: 'root',
  SHELL: '/bin/bash',
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
};

/** Signals the host may pass on. */
const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

interface Surroundings {
  readonly config: AgentConfig;
  readonly pipes: PipePool;
}

/**
 * Runs a command for a connection, in a session of its own; gives the taker of the frames that follow. As with ssh, the
 * command is over when it has ended and its output is closed; and a connection that goes before takes it along.
 */
export function runCommand(
  link: Link,
  request: ExecRequest,
  { config, pipes }: Surroundings,
): (frame: Frame) => void {
  const early: Frame[] = [];
  let take = (frame: Frame): void => void early.push(frame);
  pipes.take().then(
    (standard) => {
      if (link.socket.destroyed) return abandon(standard);
      take = start(link, request, standard, config);
      early.splice(0).forEach((frame) => take(frame));
    },
    (error: unknown) => {
      const words = error instanceof Error ? error.message : String(error);
      link.sendJson(FrameType.refusal, { message: `no pipes for the command: ${words}` });
      link.socket.end();
    },
  );
  return (frame) => take(frame);
}

function start(
  link: Link,
  request: ExecRequest,
  pipes: StandardPipes,
  config: AgentConfig,
): (frame: Frame) => void {
  const [program = '', ...args] = request.argv;
  const theirs = [pipes.stdin.theirs, pipes.stdout.theirs, pipes.stderr.theirs];
  const home = under(config, '/root');
  let child: ChildProcess;
  try {
    child = spawn(program, args, {
      cwd: request.cwd ?? home,
      env: { HOME: home, ...loginEnvironment, ...request.env },
      detached: true,
      stdio: theirs,
    });
  } catch (error) {
    // Too long an argv, for instance, is thrown; what the program itself lacks comes as an event.
    abandon(pipes);
    finish(link, notStarted(link, request, error));
    return () => undefined;
  }
  theirs.forEach((fd) => closeSync(fd));
  beLikeOthers(child.pid);
  void waitForEnd(link, request, child, pipes).then((exit) => finish(link, exit));
  link.socket.once('end', () => link.socket.destroy());
  link.socket.once('close', () => hangUp(child, pipes, config.grace));
  const feed = feeder(link, pipes.stdin.ours);
  return (frame) => {
    if (frame.type === FrameType.signal) forward(child, frame.payload.toString('latin1'));
    else if (frame.type === FrameType.stdin || frame.type === FrameType.stdinEnd) feed(frame);
    else throw new ProtocolError('one request a connection');
  };
}

/** The agent is spared by the kernel when memory runs out; the commands shall not be. */
function beLikeOthers(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '0');
  } catch {
    // It has ended already, or this is a test without the right.
  }
}

/** Passes output on until it is closed and the command has ended. */
async function waitForEnd(
  link: Link,
  request: ExecRequest,
  child: ChildProcess,
  pipes: StandardPipes,
): Promise<Exit> {
  const output = Promise.all([
    passOn(pipes.stdout.ours, link, FrameType.stdout),
    passOn(pipes.stderr.ours, link, FrameType.stderr),
  ]);
  const exit = await new Promise<Exit>((resolve) => {
    child.once('error', (error) => resolve(notStarted(link, request, error)));
    child.once('exit', (code, signal) => {
      if (signal === null) resolve({ code: code ?? 255 });
      else resolve({ code: 128 + constants.signals[signal], signal });
    });
  });
  await output;
  pipes.stdin.ours.destroy();
  return exit;
}

function closed(stream: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (stream.closed) resolve();
    else stream.once('close', () => resolve());
  });
}

async function passOn(stream: Socket, link: Link, type: FrameType): Promise<void> {
  const resume = (): void => void stream.resume();
  stream.on('data', (chunk: Buffer) => {
    for (let offset = 0; offset < chunk.length; offset += maxData) {
      if (!link.send(type, chunk.subarray(offset, offset + maxData))) stream.pause();
    }
  });
  stream.on('error', () => stream.destroy());
  link.socket.on('drain', resume);
  await closed(stream);
  link.socket.off('drain', resume);
}

/** Takes frames of input. Input for a command that has closed its own is dropped, as a closed pipe does. */
function feeder(link: Link, stdin: Socket): (frame: Frame) => void {
  let waiting = 0;
  let ended = false;
  stdin.on('error', () => stdin.destroy());
  const give = (bytes: number): void => {
    waiting -= bytes;
    const credit = Buffer.allocUnsafe(4);
    credit.writeUInt32BE(bytes);
    link.send(FrameType.credit, credit);
    // Closed by destroy: the other way of ending a stream is a call that only sockets know, and this is a pipe.
    if (ended && waiting === 0) stdin.destroy();
  };
  return ({ type, payload }) => {
    if (type === FrameType.stdinEnd) {
      ended = true;
      if (waiting === 0) stdin.destroy();
      return;
    }
    waiting += payload.length;
    if (ended || waiting > inputWindow) throw new ProtocolError('more input than was asked for');
    if (stdin.destroyed) give(payload.length);
    else stdin.write(payload, () => give(payload.length));
  };
}

function forward(child: ChildProcess, name: string): void {
  const signal = forwarded.find((known) => known === name);
  if (signal === undefined) throw new ProtocolError(`the signal ${name} is not passed on`);
  signalGroup(child, signal);
}

/** True if there was anything left to be told. */
function signalGroup(child: ChildProcess, signal: NodeJS.Signals | 0): boolean {
  if (child.pid === undefined) return false;
  try {
    process.kill(-child.pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** The connection is gone: SIGHUP to the whole group, as a terminal does, and SIGKILL for what stays. */
function hangUp(child: ChildProcess, pipes: StandardPipes, grace: number): void {
  const running = child.exitCode === null && child.signalCode === null;
  const open = !pipes.stdout.ours.destroyed || !pipes.stderr.ours.destroyed;
  for (const pipe of [pipes.stdin, pipes.stdout, pipes.stderr]) pipe.ours.destroy();
  if (!running && !open) return;
  signalGroup(child, 'SIGHUP');
  signalGroup(child, 'SIGCONT');
  const end = performance.now() + grace;
  const look = setInterval(() => {
    // Asked often, so that the number is not used once the group is empty and the number free for others.
    if (!signalGroup(child, 0)) clearInterval(look);
    else if (performance.now() >= end) signalGroup(child, 'SIGKILL');
  }, 50);
}

function abandon(pipes: StandardPipes): void {
  for (const pipe of [pipes.stdin, pipes.stdout, pipes.stderr]) {
    pipe.ours.destroy();
    closeSync(pipe.theirs);
  }
}

/** Why nothing ran, in a shell's words and numbers. */
function notStarted(link: Link, { argv, cwd }: ExecRequest, error: unknown): Exit {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  const [words, exit] = explain(argv[0] ?? '', cwd, code);
  link.send(FrameType.stderr, Buffer.from(`zfsdev: ${words}\n`));
  return { code: exit };
}

function explain(program: string, cwd: string | undefined, code: string): [string, number] {
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    if (cwd !== undefined && !isFolder(cwd)) return [`${cwd}: no such folder in the guest`, 126];
    return [`${program}: command not found in the guest`, 127];
  }
  if (code === 'EACCES') return [`${program}: not executable, or a folder`, 126];
  if (code === 'ENOEXEC') return [`${program}: no program format that the guest's kernel knows`, 126];
  if (code === 'E2BIG') return [`${program}: the arguments are too long`, 126];
  return [`${program}: can't be started: ${code}`, 126];
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function finish(link: Link, exit: Exit): void {
  link.sendJson(FrameType.exit, exit);
  link.socket.end();
}
