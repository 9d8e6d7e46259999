import { Failure, type FailureReason } from '../core/errors.ts';
import { readIfExists } from '../host/files.ts';
import { lastLines } from '../host/run.ts';
import type { Phase } from './builder.ts';

interface Cause {
  readonly words: RegExp;
  /** A program of the phase says it, somewhere in the last lines; else it is what the phase itself gave as its reason. */
  readonly inLog?: boolean;
  readonly message?: string;
  readonly reason?: FailureReason;
  readonly hint: string;
  /** What mends it is another file of this host than the build was begun with, so that it can't go on. */
  readonly anew?: boolean;
}

/** What a build's own words tell of its cause; the first that matches is shown. */
const causes: readonly Cause[] = [
  {
    words: /not enough space to build in/,
    reason: 'no-space',
    hint: 'make room there; zfsdev usage tells what takes it',
  },
  {
    words: /No space left on device|Disk quota exceeded/,
    inLog: true,
    message: 'the disk is full',
    reason: 'no-space',
    hint: 'make room (zfsdev usage tells what takes it), then go on with --resume',
  },
  {
    words: /Killed signal terminated program|Out of memory|Cannot allocate memory/,
    inLog: true,
    message: 'there was not enough memory',
    hint: 'take fewer --jobs, and go on with --resume',
  },
  {
    words: /can not be fetched|can not fetch|package lists|could not be installed/,
    hint: 'check the network, then go on with --resume',
  },
  {
    words: /did not survive olddefconfig|a fragment has a line/,
    hint: 'correct the fragment, or add the options that it depends on to it',
    anew: true,
  },
  {
    words: /names a file that this source does not have/,
    hint: 'keys and lists of a distribution are its own: set the option to "" in a fragment',
    anew: true,
  },
  {
    words: /^the archive is damaged.*: \//,
    hint: 'fetch the file again',
    anew: true,
  },
  {
    words: /^the checksum|^the archive is damaged/,
    hint: 'have it fetched once more, or correct the address or --sha256',
  },
  {
    words: /CONFIG_MODULES is not set/,
    hint: 'set it in the configuration or a fragment, or leave OpenZFS out: --zfs none',
    anew: true,
  },
  {
    words: /not the source of a release of OpenZFS/,
    hint: 'name the tarball of a release (zfs-2.3.4.tar.gz): a checkout has no configure in it',
    anew: true,
  },
  {
    words: /not the source of a kernel/,
    hint: 'name the tarball or the top folder of a kernel: it has Makefile and Kconfig in it',
    anew: true,
  },
];

/** Where the log is, and what can be done with what is left. */
export interface Place {
  readonly log: string;
  readonly afterwards: readonly string[];
  readonly anew: string;
}

/** A phase whose end is unknown: the place was lost, or the time ran out. What is left of it is told as well. */
export function explainLoss(
  phase: Phase,
  error: unknown,
  { log, afterwards }: Pick<Place, 'log' | 'afterwards'>,
): unknown {
  if (!(error instanceof Failure)) return error;
  const { reason, message, hint, data, detail } = error;
  return new Failure(reason, `the build ended in the phase ${phase}: ${message}`, {
    detail: [...(detail ? [detail, ''] : []), `the whole log: ${log}`].join('\n'),
    hint: [...(hint ? [hint] : []), ...afterwards].join('\n'),
    data: { ...data, phase, log },
    cause: error,
  });
}

/** The first line that a phase has in the log. */
export function headingOf(phase: Phase): string {
  return `--- ${phase} (${new Date().toISOString()})`;
}

/** What the last run of a phase has said: what ended an earlier one is no cause of this. */
function linesOf(phase: Phase, log: string): string {
  const [...headings] = log.matchAll(new RegExp(`^--- ${phase} \\(\\d{4}-[^\n]*\\n`, 'gm'));
  const last = headings.at(-1);
  return last === undefined ? log : log.slice(last.index + last[0].length);
}

/** Turns a phase that failed into a Failure with its reason, the end of the log, where the log is, and what to do next. */
export function explainPhase(
  phase: Phase,
  exitCode: number,
  told: string | undefined,
  { log, afterwards, anew }: Place,
): Failure {
  const end = lastLines(linesOf(phase, readIfExists(log) ?? ''), 30);
  const cause = causes.find(({ words, inLog }) => words.test(told ?? '') || (inLog && words.test(end)));
  const what = told ?? `the phase ${phase} ended with exit code ${exitCode}`;
  const message = cause?.message === undefined ? what : `${what}: ${cause.message}`;
  const onwards = cause?.anew ? [anew, ...afterwards.slice(1)] : afterwards;
  const hints = [...(cause ? [cause.hint] : []), ...onwards];
  return new Failure(cause?.reason ?? 'process', message, {
    detail: `${end}\n\nthe whole log: ${log}`,
    hint: hints.join('\n'),
    data: { phase, exitCode, log },
  });
}
