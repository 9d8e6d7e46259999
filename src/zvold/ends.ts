import { wordsOf, ZvolError } from './errors.ts';
import type { ImportJob } from './jobs.ts';

/** Why an import ends that somebody called off, or that goes down with its daemon. */
export const cancelled = (why: string): ZvolError => new ZvolError('CANCELLED', why);
export const cutOff = (why: string): ZvolError => new ZvolError('ABORTED', why);

/** Something that an import made is still there, beside why it came to no end. */
export class Left extends ZvolError {
  /** What, and why. */
  readonly left: string;

  constructor(why: unknown, left: string) {
    super(why instanceof ZvolError ? why.code : 'INTERNAL', withLeft(wordsOf(why), left), why);
    this.left = left;
  }
}

const withLeft = (why: string, left: string): string =>
  [why, left].filter((words) => words !== '').join('; ');

/** How an import ended that did not come to its end. @param left what of it is still there, in words; nothing if empty */
export function failed(reason: unknown, left = ''): Partial<ImportJob> {
  const code = reason instanceof ZvolError ? reason.code : 'INTERNAL';
  const error = reason instanceof Left ? reason.message : withLeft(wordsOf(reason), left);
  return { state: code === 'CANCELLED' ? 'cancelled' : 'failed', error, code };
}
