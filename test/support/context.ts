import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ZfsdevEvent } from '../../src/core/events.ts';
import type { Context } from '../../src/host/context.ts';
import { resolvePaths } from '../../src/host/paths.ts';
import { createAttach, createRun } from '../../src/host/run.ts';

/** A context with a state home of its own, in a folder whose name has a space and a comma. */
export interface TestContext extends Context {
  readonly folder: string;
  readonly events: ZfsdevEvent[];
  remove(): Promise<void>;
}

export async function testContext(
  options: {
    readonly path?: string;
    readonly signal?: AbortSignal;
    readonly dryRun?: boolean;
    /** More variables. */
    readonly env?: Readonly<Record<string, string>>;
    /** The folder to use, where paths in it had to be known before. */
    readonly folder?: string;
  } = {},
): Promise<TestContext> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), 'zfsdev a,b-')));
  const env = {
    PATH: options.path ?? process.env['PATH'],
    ZFSDEV_HOME: join(folder, 'home'),
    TMPDIR: folder,
    ...options.env,
  };
  const dryRun = options.dryRun ?? false;
  const events: ZfsdevEvent[] = [];
  return {
    env,
    paths: resolvePaths(env),
    run: createRun({ env, dryRun }),
    attach: createAttach({ env }),
    emit: (event) => events.push(event),
    signal: options.signal ?? new AbortController().signal,
    dryRun,
    folder,
    events,
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
