import { Failure } from '../core/errors.ts';
import type { Paint } from './style.ts';

/** An error as people read it: what happened, its last words, what to type next. Bugs come with their stack. */
export function renderFailure(error: unknown, paint: Paint): string {
  if (!(error instanceof Failure)) {
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return `${paint('bad', 'internal error:')} ${stack}\nThis is a bug in zfsdev; please report it with the lines above.\n`;
  }
  const lines = [`${paint('bad', 'error:')} ${error.message}`];
  if (error.detail) lines.push(...error.detail.split('\n').map((line) => `  ${line}`));
  if (error.hint)
    lines.push(
      ...error.hint.split('\n').map((line, i) => `${i === 0 ? paint('strong', 'next:') : '     '} ${line}`),
    );
  return `${lines.join('\n')}\n`;
}

/** The same for `--json`. */
export function failureDocument(error: unknown): object {
  if (!(error instanceof Failure)) {
    return { error: { reason: 'internal', message: error instanceof Error ? error.message : String(error) } };
  }
  return {
    error: {
      reason: error.reason,
      message: error.message,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.detail === undefined ? {} : { detail: error.detail }),
      ...(Object.keys(error.data).length === 0 ? {} : { data: error.data }),
    },
  };
}
