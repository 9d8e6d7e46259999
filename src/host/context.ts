import type { Emit } from '../core/events.ts';
import type { Paths } from './paths.ts';
import type { Attach, Run } from './run.ts';

/** What every operation is handed: no module-level state, and tests pass their own. */
export interface Context {
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly paths: Paths;
  readonly run: Run;
  readonly attach: Attach;
  readonly emit: Emit;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** Nothing is changed; operations emit `would` events instead. */
  readonly dryRun: boolean;
}
