import { createInterface } from 'node:readline/promises';
import { Failure } from '../core/errors.ts';

/** The ends of a terminal that a question needs. */
export interface Terminal {
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly output: NodeJS.WritableStream & { readonly isTTY?: boolean };
}

/**
 * Asks a question that is answered by yes or no; the empty answer is yes.
 * @throws Failure `usage` if there is no terminal to ask on; its hint names the flag that answers beforehand.
 *   Failure `interrupted` on Ctrl-C and Ctrl-D.
 */
export async function confirm(
  question: string,
  options: { readonly flag: string; readonly signal: AbortSignal; readonly terminal?: Terminal },
): Promise<boolean> {
  const { input, output } = options.terminal ?? { input: process.stdin, output: process.stderr };
  if (input.isTTY !== true || output.isTTY !== true) {
    throw new Failure('usage', `${question} There is no terminal to ask on`, { hint: `add ${options.flag}` });
  }
  const lines = createInterface({ input, output });
  const ended = new AbortController();
  lines.once('close', () => ended.abort());
  lines.once('SIGINT', () => ended.abort());
  try {
    const answer = await lines.question(`${question} [Y/n] `, {
      signal: AbortSignal.any([options.signal, ended.signal]),
    });
    return /^(y|yes)?$/i.test(answer.trim());
  } catch (error) {
    throw new Failure('interrupted', 'interrupted at a question; nothing was done', { cause: error });
  } finally {
    lines.close();
  }
}
