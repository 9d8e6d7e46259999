import { ExitCode, Failure, messageOf, wrapperCode } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
import { ownIdentity } from '../host/process-identity.ts';
import { printable } from '../host/run.ts';
import { resolveSpec } from '../template/resolve.ts';
import type { Spec } from '../template/spec.ts';
import { duration } from '../ui/progress.ts';
import { table } from '../ui/table.ts';
import { runBatch } from '../vm/batch.ts';
import { disown, disposableName, machinesInMemory, reap } from '../vm/disposable.ts';
import { channelTo, remove, up } from '../vm/lifecycle.ts';
import { asJson, prefixed, type LineStreams } from './line-streams.ts';
import type { Session } from './session.ts';
import { resolveFlags, type UpCommandOptions } from './up.ts';

export interface RunOptions extends UpCommandOptions {
  readonly count?: number;
  readonly copyIn?: readonly string[];
  readonly copyOut?: readonly string[];
  readonly keepOnFailure?: boolean;
  readonly env?: readonly string[];
}

interface Outcome {
  readonly name: InstanceName;
  readonly exitCode: number;
  readonly milliseconds: number;
  readonly error?: string;
  readonly kept?: boolean;
}

/** `zfsdev run`: a disposable machine for one command; several at once with `--count`. */
export async function run(
  session: Session,
  template: string,
  words: readonly string[],
  options: RunOptions,
): Promise<number> {
  const { ctx } = session;
  const command = words[0] === '--' ? words.slice(1) : words;
  const job = await plan(template, command, options);
  if (ctx.dryRun) {
    session.write(
      `would make ${job.count} of ${template}, run ${printable(job.argv)} in each, and delete them\n`,
    );
    return ExitCode.done;
  }
  await reap(ctx);
  const { count } = job;
  if (count === 1) {
    const outcome = await one(session, job, 0, session.json ? asJson(session, 0) : undefined);
    if (outcome.failure instanceof Error) throw outcome.failure;
    if (session.json) await report(session, [outcome]);
    return outcome.exitCode;
  }
  const limit = await machinesInMemory(ctx, job.spec);
  const foundNoRoom = ({ failure }: Result): boolean =>
    failure instanceof Failure && failure.reason === 'no-space';
  const outcomes = await runBatch({ count, limit, foundNoRoom }, (index) =>
    one(session, job, index, session.json ? asJson(session, index) : prefixed(index)),
  );
  await report(session, outcomes);
  if (ctx.signal.aborted) throw new Failure('interrupted', 'interrupted');
  return outcomes.find(({ exitCode }) => exitCode !== 0)?.exitCode ?? ExitCode.done;
}

type Result = Outcome & { readonly failure?: unknown };

interface Job {
  readonly spec: Spec;
  readonly argv: readonly string[];
  readonly count: number;
  readonly timeout: number;
  readonly copyIn: readonly [string, string][];
  readonly copyOut: readonly [string, string][];
  readonly options: RunOptions;
}

async function plan(template: string, command: readonly string[], options: RunOptions): Promise<Job> {
  const environment = options.env ?? [];
  for (const entry of environment) {
    if (!/^[A-Za-z_]\w*=/.test(entry)) {
      throw new Failure('usage', `--env "${entry}" is not NAME=VALUE`, { hint: '--env CI=true' });
    }
  }
  if (options.count !== undefined && options.count < 1)
    throw new Failure('usage', '--count must be at least 1');
  const spec = await resolveSpec(template, resolveFlags(options));
  return {
    spec,
    argv: environment.length === 0 ? command : ['env', ...environment, ...command],
    count: options.count ?? 1,
    timeout: parseDuration(options.timeout ?? '1h'),
    copyIn: (options.copyIn ?? []).map((text) => pair('--copy-in', text)),
    copyOut: (options.copyOut ?? []).map((text) => pair('--copy-out', text)),
    options,
  };
}

function pair(flag: string, text: string): [string, string] {
  const colon = text.indexOf(':');
  if (colon < 1 || colon === text.length - 1) {
    throw new Failure('usage', `${flag} "${text}" is not SOURCE:DESTINATION`, {
      hint: `${flag} ./tests:/root/`,
    });
  }
  return [text.slice(0, colon), text.slice(colon + 1)];
}

/** One machine from its fork to its end. Failures of zfsdev itself become 125, so that the others go on. */
async function one(
  session: Session,
  job: Job,
  index: number,
  streams: LineStreams | undefined,
): Promise<Result> {
  const began = performance.now();
  const spec: Spec = { ...job.spec, name: disposableName(job.spec) };
  const done = (exitCode: number, more: Partial<Result> = {}): Result => ({
    name: spec.name,
    exitCode,
    milliseconds: performance.now() - began,
    ...more,
  });
  try {
    const exitCode = await inMachine(session, job, spec, index, streams);
    await streams?.end();
    const kept = exitCode !== 0 && job.options.keepOnFailure === true;
    if (kept) await keep(session, spec.name);
    else await remove(session.ctx, spec.name, { force: true });
    return done(exitCode, { kept });
  } catch (error) {
    await streams?.end();
    await discard(session, spec.name, job.options.keepOnFailure === true);
    return done(wrapperCode(error), { error: messageOf(error), failure: error });
  }
}

async function inMachine(
  session: Session,
  job: Job,
  spec: Spec,
  index: number,
  streams: LineStreams | undefined,
): Promise<number> {
  const { ctx } = session;
  const { options } = job;
  await up(ctx, spec, {
    deadline: () => deadlineIn(Math.max(job.timeout, 600_000)),
    overcommit: options.overcommit === true,
    cold: options.cold === true,
    // Kept on failure means that it outlives this process; it is given up only then.
    owner: await ownIdentity(ctx.run),
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
  });
  const channel = await channelTo(ctx, spec.name, streams);
  for (const [from, to] of job.copyIn) await channel.copyIn([from], to, ctx.signal);
  const late = AbortSignal.timeout(job.timeout);
  const signal = AbortSignal.any([ctx.signal, late]);
  let exitCode: number;
  try {
    exitCode = await channel.attach(job.argv, { tty: false, signal });
  } catch (error) {
    if (!late.aborted || ctx.signal.aborted) throw error;
    throw new Failure('deadline', `the command did not end within ${duration(job.timeout)}`, {
      hint: '--timeout gives it longer',
    });
  }
  for (const [from, to] of job.copyOut)
    await channel.copyOut([from], job.count === 1 ? to : `${to}.${index + 1}`, ctx.signal);
  return exitCode;
}

async function keep(session: Session, name: InstanceName): Promise<void> {
  await disown(session.ctx, name);
  const text = `${name} is kept: zfsdev shell ${name} lets you look, zfsdev delete --force ${name} removes it`;
  session.ctx.emit({ type: 'notice', level: 'warning', text });
}

async function discard(session: Session, name: InstanceName, keepIt: boolean): Promise<void> {
  try {
    if (keepIt && !session.ctx.signal.aborted) await keep(session, name);
    else await remove({ ...session.ctx, signal: new AbortController().signal }, name, { force: true });
  } catch (error) {
    // It never came to be, and the failure that led here is the one to tell.
    if (!(error instanceof Failure) || error.reason !== 'not-found') throw error;
  }
}

async function report(session: Session, outcomes: readonly Outcome[]): Promise<void> {
  const rows = outcomes.map(({ name, exitCode, milliseconds, error }, index) => [
    String(index + 1),
    name,
    session.paint(exitCode === 0 ? 'good' : 'bad', String(exitCode)),
    duration(milliseconds),
    error ?? '',
  ]);
  const columns = [
    { title: '#' },
    { title: 'MACHINE', optional: 1 },
    { title: 'EXIT' },
    { title: 'TIME' },
    { title: '', flexible: true },
  ];
  const runs = outcomes.map(({ name, exitCode, milliseconds, error, kept }) => ({
    name,
    exitCode,
    seconds: Math.round(milliseconds) / 1000,
    ...(error === undefined ? {} : { error }),
    ...(kept ? { kept } : {}),
  }));
  await session.answer({ runs }, () => `${table(columns, rows, session.width)}\n`);
}
