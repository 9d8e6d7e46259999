import { step } from '../core/events.ts';
import { withUndo, type UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import type { ProcessIdentity } from '../host/process-identity.ts';
import type { Spec } from '../template/spec.ts';
import { reserveInstance } from './admission.ts';
import type { CreateOptions, Driver } from './driver.ts';
import type { Instance } from './instance.ts';
import type { State } from './state.ts';

export interface UpOptions extends CreateOptions {
  /** For a machine to be ready; asked for when it is started, as building its image first takes the time it takes. */
  readonly deadline: () => Deadline;
  /** Go on although the worst case doesn't fit. */
  readonly overcommit: boolean;
  /** Boot from the image, and neither use nor make a warm state. */
  readonly cold: boolean;
  /** The process that a disposable machine belongs to. */
  readonly owner?: ProcessIdentity | undefined;
}

/** How an instance comes to be: how a step is told, if by one of its own, and what it takes beyond its spec. */
export interface Making {
  readonly title?: string;
  /** Makes it one that is there to be saved. */
  readonly seed?: boolean;
  /** The bound of its disk, where it is known without asking. */
  readonly diskBound?: number;
}

/** Admits and makes an instance by one of the ways there are; a failure leaves nothing of it. */
export async function createBy(
  ctx: Context,
  driver: Driver,
  spec: Spec,
  options: UpOptions,
  { title, ...more }: Making,
  make: (state: State, undo: UndoStack) => Promise<Instance>,
): Promise<Instance> {
  return withUndo(async (undo) => {
    undo.add('the instance', () => driver.remove(spec.name));
    const admission = 'Checking the disk space of the worst case';
    const state = await step(ctx.emit, 'budget', admission, () =>
      reserveInstance(ctx, driver, spec, { overcommit: options.overcommit, owner: options.owner, ...more }),
    );
    return title === undefined ? make(state, undo) : step(ctx.emit, 'fork', title, () => make(state, undo));
  });
}
