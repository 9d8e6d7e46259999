import { chmod, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn, poll } from '../host/deadline.ts';
import { exists, readIfExists } from '../host/files.ts';
import { installCommand } from '../host/packages.ts';
import { findOnPath } from '../host/programs.ts';
import { lastLines } from '../host/run.ts';
import { sharesAmong, type ShareDevice } from '../template/storage.ts';
import type { Instance } from './instance.ts';

/** A server of shares by virtiofs, and how it is talked to. */
export interface Virtiofsd {
  readonly program: string;
  /** The one that came with QEMU up to 7.2, or its successor. */
  readonly kind: 'qemu' | 'rust';
  readonly canReadOnly: boolean;
}

/** Where packages put it, outside PATH as nobody calls it by hand: Debian and Fedora, Debian 12's QEMU, Arch. */
const usualFolders = ['/usr/libexec', '/usr/lib/qemu', '/usr/lib'];

/**
 * Finds the server.
 * @param folders where it is looked for beside PATH
 * @throws Failure `dependency` with the command that installs it, and the other way
 */
export async function findVirtiofsd(
  ctx: Pick<Context, 'env' | 'run' | 'signal'>,
  folders: readonly string[] = usualFolders,
): Promise<Virtiofsd> {
  const other = 'protocol: 9p in the template needs nothing';
  if (process.platform !== 'linux') {
    throw new Failure('unsupported', 'folders can be shared by virtiofs on Linux only', { hint: other });
  }
  const paths = [
    await findOnPath(ctx.env, 'virtiofsd'),
    ...folders.map((folder) => join(folder, 'virtiofsd')),
  ];
  const program = paths.find((path) => path !== undefined && exists(path));
  if (program === undefined) {
    throw new Failure('dependency', 'virtiofsd is not installed, which shares folders by virtiofs', {
      hint: `${installCommand('virtiofsd') ?? 'install virtiofsd'}\nor without: ${other}`,
    });
  }
  const { stdout, stderr } = await ctx.run([program, '--help'], {
    effect: 'read',
    deadline: 20_000,
    signal: ctx.signal,
    accept: [1],
  });
  const help = stdout + stderr;
  return {
    program,
    kind: help.includes('--shared-dir') ? 'rust' : 'qemu',
    canReadOnly: /--readonly\b/.test(help),
  };
}

type Sandbox = 'namespace' | 'chroot';

/**
 * How the server is to shut itself in: in namespaces of its own; where those can't be made (in a container), root still has
 * chroot. The server would only find out once the machine is connected.
 */
async function sandboxFor({ run, signal }: Pick<Context, 'run' | 'signal'>): Promise<Sandbox> {
  const isRoot = process.getuid?.() === 0;
  if (!isRoot) return 'namespace';
  try {
    await run(['unshare', '--mount', '--pid', '--net', '--fork', 'true'], {
      effect: 'read',
      deadline: 20_000,
      signal,
    });
    return 'namespace';
  } catch (error) {
    if (error instanceof Failure && error.reason === 'process') return 'chroot';
    throw error;
  }
}

/** The server's command line for one share. Pure. */
export function virtiofsdArgv(
  { program, kind }: Virtiofsd,
  { path, readonly }: Pick<ShareDevice, 'path' | 'readonly'>,
  socket: string,
  sandbox: Sandbox,
): [string, ...string[]] {
  if (kind === 'rust') {
    const access = readonly ? ['--readonly'] : [];
    return [program, `--socket-path=${socket}`, `--shared-dir=${path}`, `--sandbox=${sandbox}`, ...access];
  }
  // A list with commas, in which a backslash takes what follows as it is.
  const source = path.replaceAll(/[\\,]/g, String.raw`\$&`);
  return [program, `--socket-path=${socket}`, '-o', `source=${source}`, '-o', `sandbox=${sandbox}`];
}

/** Servers that wait for the machine that they were started for. */
export interface Servers {
  /** Ends them. With the machine they end by themselves, as soon as it has let go of them. */
  end(): Promise<void>;
  /** What they last said; empty if there are none. */
  words(): string;
}

/** Milliseconds until a server is there; it only opens a socket. */
const patience = 20_000;

/**
 * Starts a server for each share that goes by virtiofs, before the machine that connects to them. None is left if one of them
 * can't be started.
 * @throws Failure `dependency`, `process` with the server's words, `deadline`, `interrupted`
 */
export async function serveShares(ctx: Context, { name, spec }: Instance): Promise<Servers> {
  const shares = sharesAmong(spec.storage).filter(({ protocol }) => protocol === 'virtiofs');
  const running: Servers[] = [];
  const end = async (): Promise<void> => {
    for (const server of running) await server.end();
  };
  const words = (): string =>
    running
      .map((server) => server.words())
      .join('\n')
      .trim();
  if (shares.length === 0) return { end, words };
  const [server, sandbox] = await Promise.all([findVirtiofsd(ctx), sandboxFor(ctx)]);
  try {
    for (const share of shares) {
      const { socket, log } = ctx.paths.instance(name).share(share.name);
      await Promise.all([socket, log].map((path) => rm(path, { force: true })));
      const argv = virtiofsdArgv(server, share, socket, sandbox);
      running.push(await serve(ctx, argv, { share: share.name, socket, log }));
    }
  } catch (error) {
    await end();
    throw error;
  }
  return { end, words };
}

async function serve(
  ctx: Context,
  argv: [string, ...string[]],
  { share, socket, log }: { readonly share: string; readonly socket: string; readonly log: string },
): Promise<Servers> {
  // Read only where a share needs it.
  const { startInBackground } = await import('../host/background.ts');
  const server = startInBackground(ctx.env, argv, log);
  const words = (): string => lastLines(readLog(log), 5);
  const state = (): 'there' | 'ended' | undefined =>
    exists(socket) ? 'there' : server.hasEnded() ? 'ended' : undefined;
  try {
    const options = { deadline: deadlineIn(patience), signal: ctx.signal, longest: 50 };
    const found = await poll(`the server of the share "${share}"`, () => Promise.resolve(state()), options);
    if (found === 'there') {
      await chmod(socket, 0o600);
      return { end: () => server.end(), words };
    }
  } catch (error) {
    await server.end();
    throw error;
  }
  throw new Failure('process', `${argv[0]} could not serve the share "${share}": ${server.reason()}`, {
    detail: words(),
    hint: 'protocol: 9p in the template needs no server',
  });
}

function readLog(path: string): string {
  try {
    return readIfExists(path) ?? '';
  } catch (error) {
    return messageOf(error);
  }
}
