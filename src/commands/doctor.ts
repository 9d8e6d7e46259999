import { ExitCode } from '../core/errors.ts';
import { allThere, examine } from '../doctor/checks.ts';
import { installDependencies } from '../doctor/fix.ts';
import { lookAtHost } from '../doctor/host.ts';
import { doctorDocument, renderReport } from '../doctor/report.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface DoctorOptions extends GlobalOptions {
  readonly fix?: boolean;
  readonly yes?: boolean;
}

/** `zfsdev doctor`: looks at the host, with `--fix` after installing what is missing. Gives the exit code. */
export async function doctor(session: Session, options: DoctorOptions): Promise<number> {
  if (options.fix) await installDependencies(session, { yes: options.yes === true });
  const results = await examine(await lookAtHost(session.ctx));
  await session.answer(doctorDocument(results), () => renderReport(results, session.paint, session.width));
  return allThere(results) ? ExitCode.done : ExitCode.dependency;
}
