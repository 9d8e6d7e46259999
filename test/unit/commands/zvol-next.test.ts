import { describe, expect, it } from 'vitest';
import { withNext } from '../../../src/commands/zvol-next.ts';
import { Failure, type FailureReason } from '../../../src/core/errors.ts';

function hintFor(reason: FailureReason, message: string, asked: string, code = 'CODE'): string | undefined {
  const [noun = '', verb = '', instance = '', ...words] = asked.split(' ');
  const failure = new Failure(reason, message, { data: { code } });
  const found = withNext(failure, { noun, verb, instance, words }) as Failure;
  expect(found).toMatchObject({ reason, message, data: { code } });
  return found.hint;
}

describe('what to type next', () => {
  it.each([
    ['volume get m nothing', 'there is no volume "nothing"', 'zfsdev volume list m'],
    ['vsnap create m nothing s', 'there is no volume "nothing"', 'zfsdev volume list m'],
    ['vsnap delete m data s', 'the volume "data" has no snapshot "s"', 'zfsdev vsnap list m data'],
    ['template clone m t data', 'there is no template "t"', 'zfsdev template list m'],
    ['import get m job', 'there is no import "job"', 'zfsdev import list m --all'],
  ])('after %s, which is not there, is what lists those that are', (asked, message, command) => {
    expect(hintFor('not-found', message, asked)).toBe(`${command} shows those that there are`);
  });

  it.each([
    ['volume create m data', "cannot create 'testpool/data': dataset already exists", 'zfsdev volume list m'],
    ['template clone m t data', 'the volume "data" is another one', 'zfsdev volume list m'],
    ['template create m t data s', 'there is a template "t"', 'zfsdev template list m'],
    ['import start m t f', 'there is a template "t"', 'zfsdev template list m'],
    ['import start m v f', 'there is a volume "v"', 'zfsdev volume list m'],
    ['vsnap create m data s', 'there is a snapshot', 'zfsdev vsnap list m data'],
  ])('after %s, whose name is taken, is what lists those that there are', (asked, message, command) => {
    expect(hintFor('already-exists', message, asked)).toBe(`${command} shows those that there are`);
  });

  it('after a rollback past newer snapshots is how they may go', () => {
    const message = 'going back to "first" would delete the newer snapshots "second" of "data"';
    expect(hintFor('wrong-state', message, 'vsnap rollback m data first')).toBe(
      'zfsdev vsnap rollback m data first --delete-newer deletes them and goes back',
    );
    expect(hintFor('wrong-state', 'the volume is in use', 'vsnap rollback m data first')).toBeUndefined();
  });

  it('without room is what tells how much there is', () => {
    expect(hintFor('no-space', 'there is no room', 'volume create m data')).toBe(
      'zfsdev pool status m tells what is free',
    );
  });

  it('is left to what says it already, and to what is not of zvold', () => {
    const asked = { noun: 'volume', verb: 'get', instance: 'm', words: ['data'] };
    const told = new Failure('not-found', 'there is no volume "data"', { hint: 'look', data: { code: 'x' } });
    const own = new Failure('not-found', 'there is no instance "m"');
    const bug = new TypeError('a bug');
    for (const error of [told, own, bug]) expect(withNext(error, asked)).toBe(error);
  });
});
