import type { InstanceName } from '../core/names.ts';
import { deadlineIn, parseDuration } from '../host/deadline.ts';
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
  if (!results) return;
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
      deadline: deadlineOf(options, '3m'),
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
    await lifecycle.remove(session.ctx, name, { force: options.force === true });
    return 'is deleted';
  });
}
export { deleteInstances as delete };

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

function deadlineOf(options: LifecycleOptions, fallback: string): ReturnType<typeof deadlineIn> {
  return deadlineIn(parseDuration(options.timeout ?? fallback));
}
