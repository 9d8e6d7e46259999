import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { limactl } from './limactl.ts';

/** Memory of many gigabytes takes its time, and limactl tells nothing of how far it is. */
const deadline = 2 * 3_600_000;

/**
 * Has Lima create, apply or delete a snapshot. What goes wrong while a machine runs is only a warning in its log, with exit
 * code 0, or not said at all; so the caller looks afterwards.
 * @throws Failure `process` in Lima's or QEMU's words, where there are any
 */
export async function limaSnapshot(
  ctx: Context,
  home: string,
  verb: 'create' | 'apply' | 'delete',
  instance: string,
  tag: string,
): Promise<void> {
  const said: string[] = [];
  await limactl(ctx, home, ['snapshot', verb, instance, '--tag', tag], {
    effect: 'write',
    deadline,
    signal: ctx.signal,
    onMessage: (message) => said.push(message),
  });
  const trouble = said.map((message) => /^output: (.+)/s.exec(message)?.[1]).find(Boolean);
  if (trouble !== undefined)
    throw new Failure('process', `limactl snapshot ${verb} failed: ${trouble.trim()}`, {
      data: { verb, tag },
    });
}
