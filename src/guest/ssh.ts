import { rm } from 'node:fs/promises';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { Channel, ExecResult, Streams } from './channel.ts';
import { commandLine } from '../core/quote.ts';
import { leadOver, leadScript } from './ssh-lead.ts';

export interface SshTarget {
  readonly name: string;
  /** Left out: whom the configuration file names. */
  readonly user?: string;
  /** Socket of the connection that is kept open between commands. */
  readonly controlSocket: string;
  /** How to get there: by a loopback port and files of zfsdev's own, or as another program's configuration has it. */
  readonly way:
    | { readonly port: number; readonly privateKey: string; readonly knownHosts: string }
    | { readonly configFile: string; readonly host: string };
  /** Commands are run by sudo, for a user who isn't root. */
  readonly sudo?: boolean;
  /** For attached commands, instead of this process's own. */
  readonly streams?: Streams | undefined;
}

/** ssh's own exit code for "no connection"; a guest's command may give it too. */
const sshFailed = 255;

const copyDeadline = 24 * 3_600_000;

/** The channel through ssh on a loopback port. Nothing of the user's ssh configuration is read. */
export function sshChannel(ctx: Context, target: SshTarget): Channel {
  const { way } = target;
  const options = sshOptions(target);
  const host = 'host' in way ? way.host : '127.0.0.1';
  const destination = target.user === undefined ? host : `${target.user}@${host}`;
  const port = (flag: string): string[] => ('port' in way ? [flag, String(way.port)] : []);
  const ssh = (...rest: readonly string[]): [string, ...string[]] => [
    'ssh',
    ...options,
    ...port('-p'),
    ...rest,
  ];
  const remote = (argv: readonly string[]): string =>
    // ssh would take a leading hyphen for an option of its own; `exec` also spares the guest a process.
    `exec ${target.sudo ? 'sudo -n -- ' : ''}${commandLine(argv)}`;

  /** Tells 'the command said 255' from 'ssh could not connect': the kept connection is there, or it isn't. */
  const isConnected = async (): Promise<boolean> => {
    const check = await ctx.run(ssh('-O', 'check', destination), {
      effect: 'read',
      deadline: 10_000,
      accept: [sshFailed],
    });
    return check.exitCode === 0;
  };
  const unreachable = (words: string): Failure =>
    new Failure('guest', `the command channel of "${target.name}" does not answer`, {
      ...(words.trim() ? { detail: words.trim() } : {}),
      hint: `zfsdev inspect ${target.name} tells its state, zfsdev logs ${target.name} shows its console`,
    });
  const copy = async (from: readonly string[], to: string, signal: AbortSignal): Promise<void> => {
    await ctx.run(['scp', ...options, ...port('-P'), '-q', '-r', '-p', '--', ...from, to], {
      effect: 'write',
      deadline: copyDeadline,
      signal,
    });
  };

  return {
    exec: async (argv, { deadline, signal, input }): Promise<ExecResult> => {
      const result = await ctx.run(ssh('-T', destination, remote(argv)), {
        effect: 'read',
        deadline,
        signal,
        accept: Array.from({ length: 256 }, (_, code) => code),
        ...(input === undefined ? {} : { input }),
      });
      if (result.exitCode === sshFailed && !(await isConnected())) throw unreachable(result.stderr);
      return result;
    },
    attach: async (argv, { tty, signal }) => {
      const command = argv.length > 0 ? [remote(argv)] : [];
      const exitCode = await ctx.attach(ssh(tty ? '-tt' : '-T', destination, ...command), {
        signal,
        streams: target.streams,
      });
      if (exitCode === sshFailed && !(await isConnected())) throw unreachable('');
      return exitCode;
    },
    copyIn: (sources, to, signal) => copy(sources.map(localPath), `${destination}:${to}`, signal),
    copyOut: (sources, to, signal) =>
      copy(
        sources.map((path) => `${destination}:${path}`),
        localPath(to),
        signal,
      ),
    connect: (path, signal) =>
      leadOver(ctx, ssh('-T', destination, remote(['node', '-e', leadScript, path])), {
        path,
        name: target.name,
        signal,
      }),
    close: async () => {
      await ctx.run(ssh('-O', 'exit', destination), {
        effect: 'read',
        deadline: 10_000,
        accept: [sshFailed],
      });
      await rm(target.controlSocket, { force: true });
    },
  };
}

function sshOptions({ name, controlSocket, way }: SshTarget): string[] {
  const settings = {
    ...('port' in way
      ? {
          IdentityFile: way.privateKey,
          IdentitiesOnly: 'yes',
          IdentityAgent: 'none',
          UserKnownHostsFile: way.knownHosts,
          GlobalKnownHostsFile: '/dev/null',
          HostKeyAlias: name,
          StrictHostKeyChecking: 'yes',
        }
      : {}),
    PreferredAuthentications: 'publickey',
    ConnectTimeout: '60',
    ServerAliveInterval: '30',
    ControlMaster: 'auto',
    ControlPath: controlSocket,
    ControlPersist: '600',
    LogLevel: 'ERROR',
  };
  return [
    '-F',
    'configFile' in way ? way.configFile : 'none',
    ...Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${quoteOption(value)}`]),
  ];
}

/** ssh splits option values at spaces and expands `%`. */
function quoteOption(value: string): string {
  const escaped = value.replaceAll('%', '%%');
  return /\s/.test(escaped) ? `"${escaped}"` : escaped;
}

/** scp takes a path with a colon for a remote one, unless a slash comes before. */
function localPath(path: string): string {
  return path.startsWith('/') || path.startsWith('./') ? path : `./${path}`;
}
