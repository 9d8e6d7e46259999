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
  const { stderr } = await limactl(ctx, home, ['snapshot', verb, instance, '--tag', tag], {
    effect: 'write',
    deadline,
    signal: ctx.signal,
  });
  // This one of its commands logs as text, whatever form it is told to log in.
  const trouble = /\bmsg"?[=:]\s*"output: ((?:[^"\\]|\\.)+)"/.exec(stderr)?.[1];
  if (trouble !== undefined) {
    const words = trouble.replaceAll('\\r', '').replaceAll('\\n', ' ').trim();
    throw new Failure('process', `limactl snapshot ${verb} failed: ${words}`, { data: { verb, tag } });
  }
}
