import type { Emit } from '../core/events.ts';
import type { Context } from './context.ts';
import { resolvePaths } from './paths.ts';
import { createAttach, createRun } from './run.ts';

export interface ContextOptions {
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly emit: Emit;
  readonly signal: AbortSignal;
  readonly dryRun?: boolean;
  /** Told every command that is run. */
  readonly verbose?: (command: string) => void;
}

/** The context of a command, or of a script that uses zfsdev as a library. @throws Failure `usage` for a bad state home */
export function openContext({ env: given, emit, signal, dryRun = false, verbose }: ContextOptions): Context {
  const env = withSystemPrograms(given);
  const told = verbose === undefined ? {} : { verbose };
  return {
    env,
    paths: resolvePaths(env),
    run: createRun({ env, dryRun, ...told }),
    attach: createAttach({ env, ...told }),
    emit,
    signal,
    dryRun,
  };
}

/** An ordinary user of Debian has no sbin on PATH, where mke2fs and its kin lie. */
function withSystemPrograms(env: Readonly<NodeJS.ProcessEnv>): NodeJS.ProcessEnv {
  return { ...env, PATH: [env['PATH'], '/usr/sbin', '/sbin'].filter(Boolean).join(':') };
}
