import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import type { Terminal } from '../ui/confirm.ts';
import { findProgram, type Host } from './host.ts';
import { aptUpdate, type Argv } from './packages.ts';

/** How root's commands are run: as they are, by sudo with or without a password, or not at all. */
export type RootsWay = 'direct' | 'sudo' | 'sudo-asks' | 'none';

const commandDeadline = 30 * 60_000;

/** Finds out what this user needs in front of root's commands; Homebrew wants no root. */
export async function rootsWay({ ctx, user, manager }: Host): Promise<RootsWay> {
  if (user.uid === 0 || manager === 'brew') return 'direct';
  if (!(await findProgram(ctx.env, 'sudo'))) return 'none';
  const { exitCode } = await ctx.run(['sudo', '-n', 'true'], {
    effect: 'read',
    deadline: 20_000,
    signal: ctx.signal,
    accept: [1],
  });
  return exitCode === 0 ? 'sudo' : 'sudo-asks';
}

/** Root's command as it is run. */
export function asRoot(argv: Argv, way: RootsWay): Argv {
  return way === 'sudo' || way === 'sudo-asks' ? ['sudo', ...argv] : argv;
}

/** @throws Failure `dependency` with the commands, if this user can't become root. */
export function refuseRootless(way: RootsWay, commands: readonly string[]): void {
  if (way !== 'none') return;
  throw new Failure('dependency', 'installing needs root, and this host has no sudo', {
    hint: ['as root, type', ...commands.map((line) => `  ${line}`), 'then: zfsdev doctor'].join('\n'),
  });
}

/**
 * Runs the commands on the user's terminal, for sudo to ask its password there; their output goes there as well.
 * @throws Failure `dependency` without a terminal, `process` if one fails.
 */
export async function attachAll(
  ctx: Context,
  argvs: readonly Argv[],
  terminal: Partial<Terminal> | undefined,
): Promise<void> {
  const commands = argvs.map((argv) => asRoot(argv, 'sudo-asks'));
  const input = terminal?.input ?? process.stdin;
  if (input.isTTY !== true) {
    throw new Failure('dependency', 'sudo asks for a password, and there is no terminal to ask on', {
      hint: `run as root, or type on a terminal: ${commands.map(printable).join(' && ')}`,
    });
  }
  for (const argv of commands) {
    const exitCode = await ctx.attach(argv, { signal: ctx.signal });
    if (exitCode !== 0) {
      throw new Failure('process', `this failed with exit code ${exitCode}: ${printable(argv)}`, {
        hint: 'its words are above; try it by hand, then: zfsdev doctor',
      });
    }
  }
}

/**
 * Runs the commands one after the other, telling what apt-get is doing; where a package isn't found, the lists are
 * fetched once and the command is run again.
 */
export async function runAll(
  ctx: Context,
  argvs: readonly Argv[],
  way: RootsWay,
  progress: (text: string) => void,
): Promise<void> {
  const runOne = (argv: Argv): Promise<unknown> =>
    ctx.run(asRoot(argv, way), {
      effect: 'write',
      deadline: commandDeadline,
      signal: ctx.signal,
      onLine: (line) => {
        const text = progressIn(line);
        if (text !== undefined) progress(text);
      },
    });
  for (const argv of argvs) {
    try {
      await runOne(argv).catch(async (error: unknown) => {
        if (!isStale(error)) throw error;
        await runOne(aptUpdate());
        await runOne(argv);
      });
    } catch (error) {
      throw inOurWords(error, asRoot(argv, way));
    }
  }
}

/** The program that failed is `env` or `sudo` to the runner; to the user it is the whole command. */
function inOurWords(error: unknown, argv: Argv): unknown {
  if (!(error instanceof Failure) || error.reason !== 'process') return error;
  return new Failure('process', `installing failed: ${printable(argv)}`, {
    ...(error.detail === undefined ? {} : { detail: error.detail }),
    hint: 'mend what it says, then: zfsdev doctor --fix',
    data: error.data,
    cause: error,
  });
}

/** True for a failure that newer lists of packages mend: an unknown package, or a version that the mirror has no more. */
export function isStale(error: unknown): boolean {
  if (!(error instanceof Failure) || error.reason !== 'process') return false;
  return /Unable to locate package|no installation candidate|404 {1,2}Not Found|Unable to fetch some archives/.test(
    error.detail ?? '',
  );
}

/** What a line of apt-get or brew says about its progress, in few words; undefined if nothing. */
export function progressIn(line: string): string | undefined {
  const got = /^Get:\d+ \S+ \S+ (?:\S+ )?(\S+) \S+ \S+ \[(.*)\]$/.exec(line);
  if (got) return `fetch ${got[1]} (${got[2]})`;
  const dpkg = /^(Unpacking|Setting up|Processing triggers for) (\S+)/.exec(line);
  if (dpkg) return `${dpkg[1]?.toLowerCase()} ${dpkg[2]?.replace(/:\w+$/, '')}`;
  const brew = /^==> ((?:Downloading|Installing|Pouring) .*)$/.exec(line);
  return brew?.[1];
}
