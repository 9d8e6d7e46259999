import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Channel } from '../guest/channel.ts';
import type { Context } from '../host/context.ts';
import { findPackageRoot } from '../host/package-root.ts';
import { lastLines } from '../host/run.ts';
import type { Instance } from '../vm/instance.ts';
import { guestProgram } from '../vm/warm-key.ts';

/** Milliseconds for a question, for what is put in place, and for packages from a slow mirror. */
const [askDeadline, installDeadline, packagesDeadline] = [60_000, 180_000, 1_800_000];

/** Where the script lies in a machine that has it. */
const installed = '/usr/lib/zfsdev/zvold.sh';

/**
 * Sees to it that a machine that boots without zfsdev's seed has this zfsdev's volume manager, with what that takes, and
 * that it waits for clients.
 * @throws Failure `unsupported` for a machine that somebody else made, `wrong-state` for one without a pool, `guest` with
 *   the words of what failed there
 */
export async function bringZvold(ctx: Context, instance: Instance, channel: Channel): Promise<void> {
  refuseOthers(instance);
  const files = filesToBring();
  const digest = await digestOfAll(files);
  const started = await channel.exec(['sh', installed, 'start', digest], {
    deadline: askDeadline,
    signal: ctx.signal,
  });
  if (started.exitCode === 0) return;
  await step(ctx.emit, 'zvold', `Bringing the volume manager to ${instance.name}`, (progress) =>
    bring({ ctx, name: instance.name, channel, progress }, files, digest),
  );
}

function refuseOthers({ name, state, spec }: Instance): void {
  if (state.adopted) {
    throw new Failure(
      'unsupported',
      `"${name}" was made by somebody else, and zfsdev installs nothing in it`,
      {
        hint: 'zfsdev up zfs-test --driver lima makes a machine that has volumes',
      },
    );
  }
  if (spec.pool) return;
  throw new Failure('wrong-state', `"${name}" has no pool, and so no volumes`, {
    hint: 'zfsdev up zfs-test makes a machine with a pool; in a template of yours it is the key pool',
  });
}

/** All that is put in place: the program, its units, and the script that does it. */
function filesToBring(): string[] {
  const provision = join(findPackageRoot(), 'provision');
  const units = join(provision, 'image/files/etc/systemd/system');
  return [
    guestProgram('zvold.cjs'),
    join(units, 'zfsdev-zvold.socket'),
    join(units, 'zfsdev-zvold.service'),
    join(provision, 'zvold.sh'),
  ];
}

/** What tells this zfsdev's from any other one's. @throws Failure `files` if the installation is damaged */
async function digestOfAll(files: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of files) {
    try {
      const content = await readFile(file);
      hash.update(`${basename(file)} ${content.length}\n`).update(content);
    } catch (error) {
      throw new Failure('files', `${file} can't be read: ${messageOf(error)}`, {
        hint: 'install zfsdev again',
        cause: error,
      });
    }
  }
  return hash.digest('hex');
}

interface Work {
  readonly ctx: Context;
  readonly name: string;
  readonly channel: Channel;
  readonly progress: (text: string) => void;
}

async function bring(work: Work, files: readonly string[], digest: string): Promise<void> {
  const { ctx, channel, progress } = work;
  // On tmpfs, and root's alone.
  const folder = await inGuest(work, ['mktemp', '-d', '/run/zfsdev-zvold.XXXXXX'], askDeadline);
  try {
    progress('sending it');
    await channel.copyIn(files, `${folder}/`, ctx.signal);
    const script = ['sh', `${folder}/zvold.sh`] as const;
    const missing = (await inGuest(work, [...script, 'missing'], askDeadline)).split('\n').filter(Boolean);
    if (missing.length > 0) await installPackages(work, script, missing);
    progress('starting it');
    await inGuest(work, [...script, 'install', folder, digest], installDeadline);
  } finally {
    // No signal: this is the tidying up after one. A machine that is gone has nothing left of it.
    const { signal } = new AbortController();
    await channel.exec(['rm', '-rf', folder], { deadline: askDeadline, signal }).catch(() => undefined);
  }
}

/** Without Node nothing works; without the others, qcow2 alone doesn't, which is no reason to refuse all else. */
async function installPackages(
  work: Work,
  script: readonly string[],
  missing: readonly string[],
): Promise<void> {
  work.progress(`installing ${missing.join(' and ')} from the distribution, once: this can take minutes`);
  try {
    await inGuest(work, [...script, 'packages', ...missing], packagesDeadline);
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== 'guest' || missing.includes('nodejs')) throw error;
    work.ctx.emit({
      type: 'notice',
      level: 'warning',
      text: `"${work.name}" has no ${missing.join(', ')}, so qcow2 images can be neither imported nor exported there: ${lastLines(error.detail ?? '', 1)}`,
    });
  }
}

/** What a command said. @throws Failure `guest` with its words if it fails */
async function inGuest(
  { ctx, name, channel }: Work,
  argv: readonly string[],
  deadline: number,
): Promise<string> {
  const { exitCode, stdout, stderr } = await channel.exec(argv, { deadline, signal: ctx.signal });
  if (exitCode === 0) return stdout.trim();
  throw new Failure('guest', `the volume manager can't be brought to "${name}"`, {
    detail: lastLines(stderr.trim() || stdout, 15),
    hint: 'mend what is told above, then run the same command again: it goes on from there',
    data: { exitCode },
  });
}
