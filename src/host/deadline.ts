import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from '../core/errors.ts';

/** The longest that a timer can be set to, in milliseconds: 24 days; one that is set to more ends at once. */
export const longestTimer = 2 ** 31 - 1;

/** A point in time after which a wait fails; made once, handed down, so that steps share what is left. */
export interface Deadline {
  /** Milliseconds from the start to the end. */
  readonly total: number;
  /** Milliseconds left, never negative. */
  left(): number;
}

export function deadlineIn(milliseconds: number): Deadline {
  const end = performance.now() + milliseconds;
  return { total: milliseconds, left: () => Math.max(0, end - performance.now()) };
}

/**
 * Asks again and again until `ask` gives something, with a pause that grows from 10 ms to `longest`.
 * @throws Failure `deadline` or `interrupted`; whatever `ask` throws.
 */
export async function poll<T>(
  what: string,
  ask: () => Promise<T | undefined>,
  options: { deadline: Deadline; signal: AbortSignal; longest?: number },
): Promise<T> {
  for (let pause = 10; ; pause = Math.min(pause * 1.5, options.longest ?? 200)) {
    if (options.signal.aborted) throw new Failure('interrupted', `interrupted while waiting for ${what}`);
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (options.deadline.left() === 0) {
      throw new Failure('deadline', `${what} took more than ${Math.round(options.deadline.total / 1000)} s`);
    }
    await delay(Math.min(pause, options.deadline.left()), undefined, { signal: options.signal }).catch(
      () => undefined,
    );
  }
}

/** Reads a time span as people write it: `90`, `90s`, `10m`, `2h`, `7d`; a bare number is seconds. Gives milliseconds. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim());
  if (!match?.[1]) {
    throw new Failure('usage', `"${text}" is not a time span`, {
      hint: 'write for instance 90s, 10m, 2h or 7d',
    });
  }
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] ?? 's'] ?? 1000;
  return Number(match[1]) * factor;
}
