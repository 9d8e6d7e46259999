import { expect, it } from 'vitest';
import { unlessStalled, within } from '../../../src/zvold/stall.ts';
import { Turns } from '../../../src/zvold/turns.ts';

const never = new AbortController().signal;

it('so many have a turn at once, and the others come in the order in which they asked', async () => {
  const turns = new Turns(1);
  const order: string[] = [];
  const leave = await turns.take(never);
  const others = ['a', 'b', 'c'].map(async (name) => {
    const mine = await turns.take(never);
    order.push(name);
    mine();
    // Twice is once.
    mine();
  });
  leave();
  await Promise.all(others);
  expect(order).toEqual(['a', 'b', 'c']);
});

it('one that is called off leaves the queue at once, and takes nobody’s turn with it', async () => {
  const turns = new Turns(1);
  const leave = await turns.take(never);
  const controller = new AbortController();
  const first = turns.take(controller.signal);
  const second = turns.take(never);
  controller.abort(new Error('called off'));
  await expect(first).rejects.toThrow('called off');
  leave();
  const mine = await second;
  mine();
  await expect(turns.take(AbortSignal.abort(new Error('before')))).rejects.toThrow('before');
  await turns.take(never);
});

it('one that is called off when its turn has come keeps nobody else from theirs', async () => {
  const turns = new Turns(1);
  const leave = await turns.take(never);
  const controller = new AbortController();
  const first = turns.take(controller.signal);
  leave();
  controller.abort();
  (await first)();
  await turns.take(never);
});

it('what sends nothing is given up, and what hangs is not waited for at the end', async () => {
  let ended = false;
  const source: AsyncIterable<string> = {
    [Symbol.asyncIterator]: () => {
      const values = ['a'];
      return {
        next: () => {
          const value = values.shift();
          return value === undefined ? new Promise(() => undefined) : Promise.resolve({ done: false, value });
        },
        return: () => {
          ended = true;
          return new Promise(() => undefined);
        },
      };
    },
  };
  const seen: string[] = [];
  const reading = async (signal: AbortSignal, after: number): Promise<void> => {
    for await (const value of unlessStalled(source, { after, signal, idle: 'nothing came from somebody' }))
      seen.push(value);
  };
  await expect(reading(never, 5)).rejects.toMatchObject({
    code: 'DEADLINE_EXCEEDED',
    message: 'nothing came from somebody for 0.005 s',
  });
  expect({ seen, ended }).toEqual({ seen: ['a'], ended: true });
  await expect(reading(AbortSignal.abort(new Error('called off')), 60_000)).rejects.toThrow('called off');
});

it('what comes in time comes as it is, failures too', async () => {
  const patience = { after: 60_000, signal: never, idle: 'nothing came from somebody' };
  expect(await within(Promise.resolve(7), patience)).toBe(7);
  await expect(within(Promise.reject(new Error('broken')), patience)).rejects.toThrow('broken');
});
