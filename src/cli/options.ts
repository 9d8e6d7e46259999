import { InvalidArgumentError, Option } from 'commander';
import type { GlobalOptions, Loudness, Session } from '../commands/session.ts';

/** Opens a session, runs a command with it, closes it; given by main, so that this file only declares. */
export type Perform = (
  options: GlobalOptions,
  loudness: Loudness,
  run: (session: Session) => Promise<number | void>,
) => Promise<void>;

/** What commander hands over: every option of the command, and the global ones. */
export type Options = GlobalOptions & Record<string, unknown>;

/** Reads the value of an option that counts. @throws InvalidArgumentError */
export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('write a whole number.');
  return Number(text);
}

export const json = (): Option => new Option('--json', 'print JSON instead of text');
export const dryRun = (): Option => new Option('--dry-run', 'say what would be done, and change nothing');
export const timeout = (fallback: string): Option =>
  new Option('--timeout <time>', 'give up after this long (90s, 10m)').default(fallback);
export const mirror = (): Option =>
  new Option('--mirror <url>', "Debian mirror for building an image (default: the host's own)");

export const overcommit = (): Option =>
  new Option('--overcommit', "go on although the worst case doesn't fit the host's disk");

/** Gathers the values of an option that may be given several times. */
export function collect(value: string, all: string[] = []): string[] {
  return [...all, value];
}
