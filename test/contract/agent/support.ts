import { build } from 'esbuild';
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { agentChannel } from '../../../src/guest/agent-channel.ts';
import type { AgentChannel, AgentChannelTarget, AgentTarget } from '../../../src/guest/agent-channel.ts';
import { Failure } from '../../../src/core/errors.ts';
import type { Channel } from '../../../src/guest/channel.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';

/** A running agent, its machine's files below a folder of its own. */
export interface TestAgent {
  readonly root: string;
  readonly port: number;
  readonly secret: string;
  readonly target: AgentTarget;
  readonly process: ChildProcess;
  channel(options?: Partial<AgentChannelTarget>): AgentChannel;
  remove(): Promise<void>;
}

const files: Readonly<Record<string, string>> = {
  'proc/sys/kernel/hostname': 'saved\n',
  'proc/uptime': '12.34 20.00\n',
  'proc/loadavg': '0.10 0.20 0.30 1/99 1234\n',
  'proc/meminfo': 'MemTotal:        1000 kB\nMemFree:          10 kB\nMemAvailable:    500 kB\n',
  'proc/spl/kstat/zfs/tank/state': 'ONLINE\n',
  'proc/spl/kstat/zfs/arcstats': 'no pool\n',
  'sys/module/spl/parameters/spl_hostid': '0\n',
  'etc/machine-id': `${'0'.repeat(32)}\n`,
  'etc/ssh/ssh_host_ed25519_key': 'old\n',
  'dev/urandom': '',
  'root/.keep': '',
};

/**
 * Perl with stand-ins for the calls that would change this host: each is recorded with its words, and fails if a file of
 * its name says so. The helper that makes the agent's pipes has none of them.
 */
const overrides = `BEGIN {
  my $note = sub { open(my $f, ">>", "$ENV{NOTES}/calls"); print $f join(" ", @_), "\\n"; close $f;
    return "0 but true" unless -e "$ENV{NOTES}/$_[0]-fails"; $! = 1; undef };
  *CORE::GLOBAL::syscall = sub { $note->("syscall", $_[0], unpack("q q", $_[2])) ? 0 : -1 };
  *CORE::GLOBAL::ioctl = sub { my (undef, $request, $data) = @_;
    $note->($request == 0x8924 ? ("mac", unpack("Z16 S H12", $data)) : ("reseed", $request)) };
}`;

/** Puts that Perl into a folder, which holds what it notes too. */
export async function putHarmlessPerl(folder: string): Promise<void> {
  const text = `#!/bin/sh\nexport NOTES='${folder}'\nexec /usr/bin/perl -e '${overrides}' "$@"\n`;
  await writeFile(join(folder, 'perl'), text, { mode: 0o755 });
}

/** Bundles the agent as the build does and starts it on a free loopback port. */
export async function startTestAgent(
  options: {
    readonly arguments?: readonly string[];
    readonly path?: string;
    /** A folder in which commands of the guest are looked for first. */
    readonly commands?: string;
  } = {},
): Promise<TestAgent> {
  const root = await mkdtemp(join(tmpdir(), 'zfsdev-agent-'));
  const secret = randomBytes(32).toString('hex');
  for (const [path, text] of Object.entries({ ...files, 'etc/zfsdev/agent.key': `${secret}\n` })) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  const bundle = join(root, 'agent.mjs');
  await build({
    entryPoints: ['src/agent/main.ts'],
    outfile: bundle,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
  });
  if (options.commands !== undefined) {
    const [text, first] = [await readFile(bundle, 'utf8'), '/usr/local/sbin:/usr/local/bin'];
    if (!text.includes(first)) throw new Error('the agent has another PATH for its commands');
    await writeFile(bundle, text.replace(first, `${options.commands}:${first}`));
  }
  const words = ['0', '--address', '127.0.0.1', '--root', root, ...(options.arguments ?? [])];
  const agent = spawn(process.execPath, [bundle, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: `${options.path ?? ''}:${process.env['PATH'] ?? ''}` },
  });
  const port = await listeningPort(agent);
  const target: AgentTarget = { name: 'zfs-test', port, secret: () => secret };
  return {
    root,
    port,
    secret,
    target,
    process: agent,
    channel: (more = {}) =>
      agentChannel({ env: process.env }, { ...target, connectWithin: 10_000, fallback: noChannel, ...more }),
    remove: async () => {
      const ended = new Promise((resolve) => agent.once('close', resolve));
      if (agent.exitCode === null && agent.signalCode === null) {
        agent.kill('SIGKILL');
        await ended;
      }
      await rm(root, { recursive: true, force: true });
    },
  };
}

function listeningPort(agent: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = '';
    agent.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const port = /port (\d+)\n/.exec(text)?.[1];
      if (port) resolve(Number(port));
    });
    agent.once('close', () => reject(new Error(`the agent ended: ${text}`)));
  });
}

const refuse = (): never => {
  throw new Error('the fallback was called');
};

/** Fails on any use. */
export const noChannel: Channel = {
  exec: refuse,
  attach: refuse,
  copyIn: refuse,
  copyOut: refuse,
  connect: refuse,
  close: () => Promise.resolve(),
};

/** Patience and a signal for one question. */
export function patience(milliseconds = 10_000): {
  deadline: ReturnType<typeof deadlineIn>;
  signal: AbortSignal;
} {
  return { deadline: deadlineIn(milliseconds), signal: new AbortController().signal };
}

export const quick = { deadline: 30_000, signal: new AbortController().signal };

/** What a promise fails with, which has to be a Failure. */
export async function failure(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error('it did not fail');
}
