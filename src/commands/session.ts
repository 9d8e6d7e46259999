import { Failure } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { openContext } from '../host/open-context.ts';
import { failureDocument, renderFailure } from '../ui/failure.ts';
import { jsonProgress, plainProgress, quietProgress, type Progress } from '../ui/progress.ts';
import { painter, wantsColor, type Paint } from '../ui/style.ts';

/** Options that every command takes. */
export interface GlobalOptions {
  readonly json?: boolean;
  readonly verbose?: boolean;
  readonly color?: boolean;
  readonly dryRun?: boolean;
}

/** How loud a command's work is: a task list and lines, or only warnings (`guest`: the guest's own output is the point, and its exit code). */
export type Loudness = 'steps' | 'quiet' | 'guest';

/** What a command is handed: the context for the rooms below, and the way to the user. */
export interface Session {
  readonly ctx: Context;
  readonly json: boolean;
  readonly paint: Paint;
  /** Columns of the terminal; 80 where there is none. */
  readonly width: number;
  /** A command's answer: one JSON document (in one line, the last one after a long operation's events), or text for people. */
  answer(document: object, human: () => string): Promise<void>;
  /** Prints to standard output as it is. */
  write(text: string): void;
  fail(error: unknown): Promise<void>;
  end(): Promise<void>;
}

export async function openSession(
  options: GlobalOptions,
  loudness: Loudness,
  signal: AbortSignal,
): Promise<Session> {
  const { stdout, stderr } = process;
  const { env } = process;
  const json = options.json === true;
  const paint = painter(wantsColor(stdout, env, options.color));
  const paintError = painter(wantsColor(stderr, env, options.color));
  const toStderr = (text: string): void => void stderr.write(text);
  const progress = await chooseProgress(json, loudness, options.verbose === true, paintError, toStderr);
  let longOperation = false;
  const emit: Emit = (event) => {
    longOperation = true;
    progress.emit(event);
  };
  const verbose = options.verbose
    ? { verbose: (command: string) => toStderr(`${paintError('faint', `$ ${command}`)}\n`) }
    : {};
  return {
    ctx: openContext({ env, emit, signal, dryRun: options.dryRun === true, ...verbose }),
    json,
    paint,
    width: stdout.isTTY ? stdout.columns : 80,
    answer: async (document, human) => {
      await progress.end(false);
      if (!json) stdout.write(human());
      else
        stdout.write(
          `${longOperation ? JSON.stringify({ type: 'result', ...document }) : JSON.stringify(document)}\n`,
        );
    },
    write: (text) => void stdout.write(text),
    fail: async (error) => {
      await progress.end(true);
      if (json) stdout.write(`${JSON.stringify(failureDocument(error))}\n`);
      else toStderr(renderFailure(error, paintError));
    },
    end: () => progress.end(false),
  };
}

async function chooseProgress(
  json: boolean,
  loudness: Loudness,
  verbose: boolean,
  paint: Paint,
  write: (text: string) => void,
): Promise<Progress> {
  if (json && loudness === 'steps') return jsonProgress((text) => void process.stdout.write(text));
  if (loudness !== 'steps') return quietProgress(write, paint);
  // --verbose prints commands between the steps, which a live list would overwrite.
  if (!process.stderr.isTTY || verbose) return plainProgress(write, paint);
  const { taskList } = await import('../ui/task-list.ts');
  return taskList(write, paint);
}

/** A person can be asked only if both ends are a terminal. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** @throws Failure `usage`: a choice is needed and nobody can be asked. */
export function refuseToAsk(question: string, flag: string): never {
  throw new Failure('usage', `${question} (and there is no terminal to ask on)`, { hint: `add ${flag}` });
}
