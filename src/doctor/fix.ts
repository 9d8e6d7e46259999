import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, hasCode } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import { confirm, type Terminal } from '../ui/confirm.ts';
import type { Check, CheckResult } from './check.ts';
import { examine, mendableChecks } from './checks.ts';
import { lookAtHost, type Host, type HostOverrides } from './host.ts';
import { asRoot, attachAll, refuseRootless, rootsWay, runAll } from './install.ts';
import { aptInstall, aptUpdate, packagesFor, type Argv } from './packages.ts';

/** What is needed of a command's session; `end` lets go of the terminal. */
export interface Installer {
  readonly ctx: Context;
  end(): Promise<void>;
}

export interface InstallOptions {
  /** Don't ask. */
  readonly yes: boolean;
  /** Checks that zfsdev can do without in general, and this work can't. */
  readonly needed?: readonly string[];
  /** For tests. */
  readonly host?: HostOverrides;
  readonly terminal?: Terminal;
}

/** What `--fix` does on this host. */
export interface Plan {
  readonly packages: readonly string[];
  /** Root's commands beside installing packages. */
  readonly commands: readonly Argv[];
  /** Needed programs for which zfsdev knows no package here. */
  readonly unknown: readonly string[];
}

/**
 * Installs what is missing, after showing the exact commands and asking; does nothing if nothing is missing.
 * Under --dry-run it only tells the commands.
 * @throws Failure `usage` off a terminal without `yes`; `dependency` if this host's packages aren't known, root's rights
 *   can't be had, or the user says no; `process` with apt-get's last lines if it fails.
 */
export async function installDependencies(session: Installer, options: InstallOptions): Promise<void> {
  const { ctx } = session;
  const host = await lookAtHost(ctx, options.host);
  const checks = mendableChecks.map((check) =>
    options.needed?.includes(check.id) ? { ...check, optional: () => false } : check,
  );
  const plan = planOf(await examine(host, checks), host);
  refuseUnknown(plan, host);
  const argvs = await commandsOf(plan, host);
  if (argvs.length === 0) return;
  const way = await rootsWay(host);
  const shown = argvs.map((argv) => printable(asRoot(argv, way)));
  if (ctx.dryRun) {
    for (const command of shown) ctx.emit({ type: 'would', text: `run ${command}` });
    return;
  }
  refuseRootless(way, shown);
  ctx.emit({
    type: 'notice',
    level: 'info',
    text: ['To be run:', ...shown.map((line) => `  ${line}`)].join('\n'),
  });
  await session.end();
  if (!options.yes) await ask(ctx, shown, options.terminal);
  if (way === 'sudo-asks') await attachAll(ctx, argvs, options.terminal);
  else
    await step(ctx.emit, 'dependencies', `install ${namesOf(plan)}`, (progress) =>
      runAll(ctx, argvs, way, progress),
    );
  await confirmInstalled(host, checks);
}

function namesOf({ packages, commands }: Plan): string {
  return packages.length > 0 ? packages.join(', ') : commands.map(([program]) => program).join(', ');
}

/** A program may be absent although its package went in: what counts is what the checks find. */
async function confirmInstalled(host: Host, checks: readonly Check[]): Promise<void> {
  const still = (await examine(host, checks)).filter(({ status }) => status === 'missing');
  if (still.length === 0) return;
  throw new Failure(
    'dependency',
    `still missing after installing: ${still.map(({ title }) => title).join(', ')}`,
    {
      detail: still.map(({ title, found }) => `${title}: ${found}`).join('\n'),
      hint: 'zfsdev doctor',
    },
  );
}

/** Gathers what the results ask for: needed things only, and what installs with them is listed once. */
export function planOf(results: readonly CheckResult[], host: Pick<Host, 'manager'>): Plan {
  const missing = results.filter(({ status }) => status === 'missing');
  const things = missing.flatMap(({ finding }) => finding.install ?? []);
  return {
    packages: packagesFor(things, host.manager),
    commands: missing.flatMap(({ finding }) => finding.commands ?? []),
    unknown: things.filter((thing) => packagesFor([thing], host.manager).length === 0),
  };
}

function refuseUnknown({ unknown }: Plan, { manager, release, platform }: Host): void {
  if (unknown.length === 0) return;
  const system = release.name || (platform === 'darwin' ? 'macOS' : platform);
  throw new Failure('dependency', `these must be installed by hand on ${system}: ${unknown.join(', ')}`, {
    hint:
      platform === 'darwin' && manager === undefined
        ? 'install Homebrew (https://brew.sh), then: zfsdev doctor --fix'
        : "install them by your system's package manager, then: zfsdev doctor",
    data: { missing: unknown },
  });
}

async function commandsOf({ packages, commands }: Plan, host: Host): Promise<Argv[]> {
  if (packages.length === 0) return [...commands];
  if (host.manager === 'brew') return [['brew', 'install', ...packages], ...commands];
  const update = (await hasPackageLists(host)) ? [] : [aptUpdate()];
  return [...update, aptInstall(packages), ...commands];
}

/** False on a fresh container or cloud image, where apt-get knows no package before its first update. */
async function hasPackageLists({ root }: Host): Promise<boolean> {
  try {
    const files = await readdir(join(root, 'var/lib/apt/lists'));
    return files.some((file) => /_Packages(\.\w+)?$/.test(file));
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'EACCES')) return false;
    throw error;
  }
}

async function ask(ctx: Context, commands: readonly string[], terminal: Terminal | undefined): Promise<void> {
  const question = commands.length === 1 ? 'Run this command?' : `Run these ${commands.length} commands?`;
  const yes = await confirm(question, {
    flag: '--yes',
    signal: ctx.signal,
    ...(terminal === undefined ? {} : { terminal }),
  });
  if (!yes) throw new Failure('dependency', 'nothing was installed', { hint: commands.join(' && ') });
}
