import type { Command } from './command.ts';
import { ZvolError, type ZvolCode } from './errors.ts';

/** Milliseconds for a question, and for a change: deleting much takes a while where the pool is slow. */
const questionDeadline = 60_000;
const changeDeadline = 600_000;

/** What ZFS says when it refuses, and what that means to a client; the first that matches. */
const meanings: readonly (readonly [RegExp, ZvolCode])[] = [
  [/I\/O is currently suspended|pool I\/O|suspended/i, 'UNAVAILABLE'],
  [
    /no such pool|cannot open '[^'/@]+': (?:no such pool|pool)|pool is (?:unavail|busy|not imported)/i,
    'UNAVAILABLE',
  ],
  [/modules? (?:are|is) not loaded|\/dev\/zfs|permission denied/i, 'UNAVAILABLE'],
  [
    /out of space|no space left|quota exceeded|size is greater than available|insufficient/i,
    'RESOURCE_EXHAUSTED',
  ],
  [/already exists|tag already/i, 'ALREADY_EXISTS'],
  [/does not exist|no such (?:tag|dataset|snapshot)|could not find any snapshots/i, 'NOT_FOUND'],
  [
    /is busy|has (?:children|dependent clones|clones)|more recent snapshots|mounted|in use|held|cannot (?:promote|destroy)/i,
    'FAILED_PRECONDITION',
  ],
  [
    /invalid|bad (?:property|numeric)|must be|too (?:long|short)|missing|is not a|multiple of/i,
    'INVALID_ARGUMENT',
  ],
];

/** ZFS's words, without the part that repeats the command. */
export function classify(stderr: string): ZvolError {
  const words =
    stderr
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('usage:'))[0] ?? '';
  const [, code = 'INTERNAL'] = meanings.find(([pattern]) => pattern.test(stderr)) ?? [];
  return new ZvolError(code, words === '' ? 'ZFS refused, and did not say why' : words);
}

/** The one place that calls `zfs` and `zpool`. */
export class Zfs {
  readonly #command: Command;

  constructor(command: Command) {
    this.#command = command;
  }

  /** Asks; gives the fields of each line. @throws ZvolError `UNAVAILABLE` and others, never an empty answer instead */
  async ask(...argv: readonly [string, ...string[]]): Promise<string[][]> {
    const { exitCode, stdout, stderr } = await this.#command(argv, { deadline: questionDeadline });
    if (exitCode !== 0) throw classify(stderr);
    return stdout === ''
      ? []
      : stdout
          .trimEnd()
          .split('\n')
          .map((line) => line.split('\t'));
  }

  /** Changes something. @throws ZvolError in ZFS's own words */
  async change(...argv: readonly [string, ...string[]]): Promise<void> {
    const { exitCode, stderr } = await this.#command(argv, { deadline: changeDeadline });
    if (exitCode !== 0) throw classify(stderr);
  }
}
