import { parseName, type InstanceName } from '../core/names.ts';
import { deadlineIn, parseDuration, type Deadline } from '../host/deadline.ts';
import { adopt as adoptFromLima } from '../vm/adopt.ts';
import * as lifecycle from '../vm/lifecycle.ts';
import { eachInstance } from './each-instance.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface LifecycleOptions extends GlobalOptions {
  readonly force?: boolean;
  readonly timeout?: string;
  readonly overcommit?: boolean;
}

/** Does one thing to each instance in turn, names checked before the first is touched, and tells what came of it. */
async function forEach(
  session: Session,
  names: readonly string[],
  would: string,
  act: (name: InstanceName) => Promise<string>,
): Promise<void> {
  const results = await eachInstance(session, names, would, async (name) => ({
    name,
    outcome: await act(name),
  }));
  if (results) await tell(session, results);
}

async function tell(
  session: Session,
  results: readonly { readonly name: InstanceName; readonly outcome: string }[],
): Promise<void> {
  await session.answer({ instances: results }, () =>
    results.map(({ name, outcome }) => `${session.paint('good', name)} ${outcome}\n`).join(''),
  );
}

export async function start(
  session: Session,
  names: readonly string[],
  options: LifecycleOptions,
): Promise<void> {
  await forEach(session, names, 'start', async (name) => {
    const { outcome } = await lifecycle.start(session.ctx, name, {
      deadline: deadlineOf(options, '10m'),
      overcommit: options.overcommit === true,
    });
    return outcome === 'already-running' ? 'is running already' : 'is started';
  });
}

export async function stop(
  session: Session,
  names: readonly string[],
  options: LifecycleOptions,
): Promise<void> {
  await forEach(session, names, options.force ? 'cut the power of' : 'shut down', async (name) => {
    const stopped = await lifecycle.stop(session.ctx, name, {
      force: options.force === true,
      deadline: deadlineOf(options, '3m')(),
    });
    return stopped ? 'is stopped' : 'was not running';
  });
}

export async function restart(
  session: Session,
  names: readonly string[],
  options: LifecycleOptions,
): Promise<void> {
  await forEach(session, names, 'stop and start', async (name) => {
    await lifecycle.restart(session.ctx, name, {
      deadline: deadlineOf(options, '10m'),
      overcommit: options.overcommit === true,
      force: options.force === true,
    });
    return 'is restarted';
  });
}

export async function resume(session: Session, names: readonly string[]): Promise<void> {
  await forEach(session, names, 'resume', async (name) =>
    (await lifecycle.resume(session.ctx, name)) ? 'goes on' : 'was not paused',
  );
}

async function deleteInstances(
  session: Session,
  names: readonly string[],
  options: LifecycleOptions,
): Promise<void> {
  await forEach(session, names, 'delete', async (name) => {
    const deleted = await lifecycle.remove(session.ctx, name, { force: options.force === true });
    return deleted ? 'is deleted' : `is no longer looked after; limactl delete ${name} deletes it`;
  });
}
export { deleteInstances as delete };

/** `zfsdev adopt`: Lima instances that zfsdev did not make. */
export async function adopt(session: Session, names: readonly string[]): Promise<void> {
  const { ctx } = session;
  const checked = [...new Set(names)].map(parseName);
  if (ctx.dryRun) {
    for (const name of checked) ctx.emit({ type: 'would', text: `look after Lima's ${name}` });
    return;
  }
  for (const name of checked) await adoptFromLima(ctx, name);
  const outcome = 'is looked after, and nothing of it was changed';
  await tell(
    session,
    checked.map((name) => ({ name, outcome })),
  );
}

export async function protect(session: Session, names: readonly string[]): Promise<void> {
  await forEach(session, names, 'protect', async (name) => {
    await lifecycle.protect(session.ctx, name, true);
    return 'is protected';
  });
}

export async function unprotect(session: Session, names: readonly string[]): Promise<void> {
  await forEach(session, names, 'unprotect', async (name) => {
    await lifecycle.protect(session.ctx, name, false);
    return 'is no longer protected';
  });
}

/** A span that begins each time it is asked for. @throws Failure `usage` at once for one that isn't any */
function deadlineOf({ timeout }: LifecycleOptions, fallback: string): () => Deadline {
  const milliseconds = parseDuration(timeout ?? fallback);
  return () => deadlineIn(milliseconds);
}
