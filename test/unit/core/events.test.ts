import { expect, test } from 'vitest';
import { step, type ZfsdevEvent } from '../../../src/core/events.ts';

test('a step tells its start, its progress and its end', async () => {
  const events: ZfsdevEvent[] = [];
  const result = await step(
    (event) => events.push(event),
    'disk',
    'Creating its disk',
    (progress) => {
      progress('half', 0.5);
      progress('more');
      return Promise.resolve(4);
    },
    (size) => `${size} GiB`,
  );
  expect(result).toBe(4);
  expect(events).toEqual([
    { type: 'step-started', step: 'disk', title: 'Creating its disk' },
    { type: 'step-progress', step: 'disk', text: 'half', fraction: 0.5 },
    { type: 'step-progress', step: 'disk', text: 'more' },
    { type: 'step-done', step: 'disk', text: '4 GiB' },
  ]);
});

test('a step that fails is not done', async () => {
  const events: ZfsdevEvent[] = [];
  const failing = step(
    (event) => events.push(event),
    'boot',
    'Booting',
    () => Promise.reject(new Error('no')),
  );
  await expect(failing).rejects.toThrow('no');
  expect(events.map(({ type }) => type)).toEqual(['step-started']);
});
