import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
import { resolveSpec } from '../template/resolve.ts';
import type { Spec } from '../template/spec.ts';
import { table } from '../ui/table.ts';
import type { Driver } from '../vm/driver.ts';
import { driverFor, driverName } from '../vm/drivers.ts';
import { warmStateFor } from '../vm/warm.ts';
import { warmKeyOf } from '../vm/warm-key.ts';
import { listWarm, removeWarm, sweepWarm, warmUsers, type WarmState } from '../vm/warm-store.ts';
import type { Session } from './session.ts';
import { resolveFlags, type UpCommandOptions } from './up.ts';

/** `zfsdev warm build`: boots a machine of this template and saves it, unless that was done before. */
export async function build(session: Session, template: string, options: UpCommandOptions): Promise<void> {
  const { ctx } = session;
  const spec = await resolveSpec(template, resolveFlags(options));
  if (ctx.dryRun)
    return ctx.emit({ type: 'would', text: `boot ${template} and save it, unless that was done before` });
  const driver = forkingDriver(session, spec);
  const timeout = parseDuration(options.timeout ?? '10m');
  await driver.check(spec);
  const warm = await warmStateFor(ctx, driver, spec, {
    deadline: () => deadlineIn(timeout),
    overcommit: options.overcommit === true,
    cold: false,
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
  });
  if (!warm)
    throw new Failure('process', 'no warm state could be saved', { hint: 'the warning above says why' });
  const { key, template: name, memory, disk } = warm.manifest;
  await session.answer(
    { key, template: name, memoryFileBytes: memory.size, diskFileBytes: disk.size },
    () =>
      `${key.slice(0, 12)} is there: ${formatBytes(memory.size)} memory, ${formatBytes(disk.size)} disk\n`,
  );
}

/** `zfsdev warm key`: what a cache of warm states and images is to be keyed by; looks only. */
export async function key(session: Session, template: string, options: UpCommandOptions): Promise<void> {
  const { ctx } = session;
  const spec = await resolveSpec(template, resolveFlags(options));
  await forkingDriver(session, spec).check(spec);
  const found = await warmKeyOf(ctx, spec);
  const document = { key: found.key, imageDigest: found.imageDigest, accelerator: found.accelerator };
  await session.answer(document, () => `${found.key}\n`);
}

/** @throws Failure `unsupported` for a driver whose machines can't be forked */
function forkingDriver({ ctx }: Session, spec: Spec): Driver {
  const driver = driverFor(ctx, spec);
  if (driver.fork && spec.storage) {
    throw new Failure('unsupported', 'machines with storage of their own boot, and are not forked', {
      hint: 'leave storage out of the template; up and run boot a machine that has it',
    });
  }
  if (driver.fork) return driver;
  if (driverName(ctx, spec) === 'qemu') {
    throw new Failure('unsupported', "machines that boot from a cloud image can't be saved and forked", {
      hint: 'up and run boot them; an image that zfsdev builds (image.flavour) can be forked',
    });
  }
  throw new Failure(
    'unsupported',
    `machines of the ${driverName(ctx, spec)} driver can't be saved and forked`,
    {
      hint: '--driver qemu has machines that can; up and run work on either',
    },
  );
}

/** `zfsdev warm list`. */
export async function list(session: Session): Promise<void> {
  const [found, users] = await Promise.all([listWarm(session.ctx), warmUsers(session.ctx)]);
  await session.answer({ warm: found.map((each) => document(each, users.get(each.key) ?? [])) }, () =>
    found.length === 0
      ? 'There are no warm states yet. The first up of a template saves one.\n'
      : `${table(
          columns,
          found.map((each) => row(session, each, users.get(each.key) ?? [])),
          session.width,
        )}\n`,
  );
}

/** `zfsdev warm remove`. */
export async function remove(session: Session, prefixes: readonly string[]): Promise<void> {
  const all = await listWarm(session.ctx);
  const chosen = prefixes.map((prefix) => choose(all, prefix));
  if (session.ctx.dryRun) {
    for (const { key } of chosen) session.ctx.emit({ type: 'would', text: `remove the warm state ${key}` });
    return;
  }
  for (const { key } of chosen) await removeWarm(session.ctx, key);
  await freed(session, chosen);
}

/** `zfsdev warm prune`: all that no instance stands on. */
export async function prune(session: Session): Promise<void> {
  const [all, users] = await Promise.all([listWarm(session.ctx), warmUsers(session.ctx)]);
  const unused = all.filter(({ key }) => !users.has(key));
  if (session.ctx.dryRun) {
    for (const { key } of unused) session.ctx.emit({ type: 'would', text: `remove the warm state ${key}` });
    return;
  }
  await sweepWarm(session.ctx);
  for (const { key } of unused) await removeWarm(session.ctx, key);
  await freed(session, unused);
}

async function freed(session: Session, removed: readonly WarmState[]): Promise<void> {
  const bytes = removed.reduce((sum, { actual }) => sum + actual, 0);
  await session.answer(
    { removed: removed.map(({ key }) => key), freedBytes: bytes },
    () => `${formatBytes(bytes)} freed\n`,
  );
}

function choose(all: readonly WarmState[], prefix: string): WarmState {
  const matches = all.filter(({ key }) => prefix !== '' && key.startsWith(prefix.toLowerCase()));
  const [match] = matches;
  if (match && matches.length === 1) return match;
  if (match)
    throw new Failure('usage', `${matches.length} warm states begin with "${prefix}"`, {
      hint: 'give more digits',
    });
  throw new Failure('not-found', `there is no warm state "${prefix}"`, { hint: 'zfsdev warm list' });
}

const columns = [
  { title: 'KEY' },
  { title: 'TEMPLATE', flexible: true },
  { title: 'ACCEL', optional: 2 },
  { title: 'MEMORY', align: 'right', optional: 1 },
  { title: 'ACTUAL', align: 'right' },
  { title: 'USED BY', optional: 3, flexible: true },
] as const;

function row({ paint }: Session, warm: WarmState, users: readonly string[]): string[] {
  const used = users.join(', ') || '-';
  const key = warm.key.slice(0, 12);
  if (warm.state === 'broken')
    return [key, paint('bad', `broken: ${warm.reason}`), '-', '-', formatBytes(warm.actual), used];
  const { template, accelerator, memoryBytes } = warm.manifest;
  return [key, template, accelerator, formatBytes(memoryBytes), formatBytes(warm.actual), used];
}

function document(warm: WarmState, usedBy: readonly string[]): object {
  const common = { key: warm.key, state: warm.state, actualBytes: warm.actual, usedBy };
  if (warm.state === 'broken') return { ...common, reason: warm.reason };
  const { template, created, imageDigest, accelerator, qemu, memoryBytes } = warm.manifest;
  return { ...common, template, created, imageDigest, accelerator, qemu, memoryBytes };
}
