import { Failure, type FailureReason } from '../core/errors.ts';
import { printable } from '../host/run.ts';

/** What was asked for: `zfsdev NOUN VERB INSTANCE WORDS`. */
export interface Asked {
  readonly noun: string;
  readonly verb: string;
  readonly instance: string;
  readonly words: readonly string[];
}

/** A failure of zvold's with the command to type next, where its own words have none. Others stay as they are. */
export function withNext(error: unknown, asked: Asked): unknown {
  if (!(error instanceof Failure) || error.hint !== undefined || error.data['code'] === undefined)
    return error;
  const hint = nextOf(error.reason, error.message, asked);
  if (hint === undefined) return error;
  const { detail, data, cause } = error;
  return new Failure(error.reason, error.message, {
    hint,
    ...(detail === undefined ? {} : { detail }),
    data,
    cause,
  });
}

function nextOf(
  reason: FailureReason,
  message: string,
  { noun, verb, instance, words }: Asked,
): string | undefined {
  const command = (...more: readonly string[]): string => printable(['zfsdev', ...more]);
  const list = (what: string): string => command(what, 'list', instance);
  if (reason === 'no-space') return `${command('pool', 'status', instance)} tells what is free`;
  if (reason === 'wrong-state' && `${noun} ${verb}` === 'vsnap rollback' && message.includes('newer'))
    return `${command(noun, verb, instance, ...words, '--delete-newer')} deletes them and goes back`;
  if (reason === 'not-found') {
    const [, owner] = /^the volume "([^"]+)" has no snapshot/.exec(message) ?? [];
    if (owner !== undefined) return `${command('vsnap', 'list', instance, owner)} shows those that there are`;
    const [, what] = /^there is no (volume|template|import) /.exec(message) ?? [];
    return what && `${list(what)}${what === 'import' ? ' --all' : ''} shows those that there are`;
  }
  if (reason !== 'already-exists' || noun === 'pool') return undefined;
  if (noun === 'vsnap')
    return `${command('vsnap', 'list', instance, words[0] ?? '')} shows those that there are`;
  // What is in the way may be of another kind than what was named.
  const isVolume =
    noun === 'volume' || verb === 'clone' || (noun === 'import' && !message.includes('template'));
  return `${list(isVolume ? 'volume' : 'template')} shows those that there are`;
}
