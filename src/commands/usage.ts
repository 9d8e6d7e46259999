import { ExitCode } from '../core/errors.ts';
import { recordSample, sampleOf } from '../storage/history.ts';
import { surveyUsage, type Usage } from '../storage/usage.ts';
import type { GlobalOptions, Session } from './session.ts';
import { usageDocument, usageText } from './usage-report.ts';

export interface UsageOptions extends GlobalOptions {
  readonly all?: boolean;
}

/** `zfsdev usage`: virtual against actual, disk by disk; exit code 1 only if no disk could be read. */
export async function usage(
  session: Session,
  names: readonly string[],
  options: UsageOptions,
): Promise<number> {
  const question = { names, all: options.all === true };
  const found = await surveyUsage(session.ctx, question);
  await session.answer(usageDocument(found), () => usageText(session, found));
  await recordSample(session.ctx, sampleOf(found, question));
  return nothingRead(found) ? ExitCode.failed : ExitCode.done;
}

/** There was something to look at, and nothing of it could be read. */
function nothingRead({ machines }: Usage): boolean {
  return (
    machines.length > 0 && machines.every(({ disks }) => disks.every(({ problem }) => problem !== undefined))
  );
}
