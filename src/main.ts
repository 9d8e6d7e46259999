#!/usr/bin/env node
import { setMaxListeners } from 'node:events';
import { CommanderError } from 'commander';
import { buildProgram } from './cli.ts';
import type { GlobalOptions, Loudness, Session } from './commands/session.ts';
import { ExitCode, Failure, wrapperCode } from './core/errors.ts';

const interruption = new AbortController();
// Many machines at once share this signal, and Node would take their listeners for a leak.
setMaxListeners(0, interruption.signal);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => interruption.abort(new Failure('interrupted', 'interrupted')));
}
// A reader that has had enough (`| head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return;
  process.stderr.write(`error: standard output can't be written: ${error.message}\n`);
  process.exitCode = ExitCode.failed;
});

/** The one place that catches, renders and picks the exit code. */
async function perform(
  options: GlobalOptions,
  loudness: Loudness,
  run: (session: Session) => Promise<number | void>,
): Promise<void> {
  const { openSession } = await import('./commands/session.ts');
  const session = await openSession(options, loudness, interruption.signal);
  try {
    process.exitCode = (await run(session)) ?? ExitCode.done;
    await session.end();
  } catch (error) {
    await session.fail(error);
    process.exitCode = exitCodeOf(error, loudness);
  }
}

function exitCodeOf(error: unknown, loudness: Loudness): number {
  if (interruption.signal.aborted) return ExitCode.interrupted;
  if (loudness === 'guest') return wrapperCode(error);
  return error instanceof Failure ? error.exitCode : ExitCode.failed;
}

try {
  const program = buildProgram(perform);
  await program.parseAsync(process.argv);
} catch (error) {
  // commander has printed its own words; help and version come this way too.
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
}
