import { expect, test } from 'vitest';
import { withUndo, UndoStack } from '../../../src/core/undo.ts';

test('a failure unwinds in reverse order and stays the error', async () => {
  const undone: string[] = [];
  const work = withUndo((undo) => {
    undo.add('first', () => void undone.push('first'));
    undo.add('second', async () => {
      await Promise.resolve();
      undone.push('second');
    });
    return Promise.reject(new Error('broken'));
  });
  await expect(work).rejects.toThrow('broken');
  expect(undone).toEqual(['second', 'first']);
});

test('success undoes nothing', async () => {
  const undone: string[] = [];
  expect(
    await withUndo((undo) => {
      undo.add('step', () => void undone.push('step'));
      return Promise.resolve(7);
    }),
  ).toBe(7);
  expect(undone).toEqual([]);
});

test('an undo step that fails is told, and does not keep the others from running', async () => {
  const undone: string[] = [];
  const undo = new UndoStack();
  undo.add('first', () => void undone.push('first'));
  undo.add('stuck', () => {
    throw new Error('stuck');
  });
  expect(await undo.unwind()).toEqual([{ what: 'stuck', error: new Error('stuck') }]);
  expect(undone).toEqual(['first']);
  expect(await undo.unwind()).toEqual([]);
});
