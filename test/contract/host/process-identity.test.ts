import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, expect, test } from 'vitest';
import { identify, isAlive } from '../../../src/host/process-identity.ts';
import { testContext } from '../../support/context.ts';

const ctx = await testContext();
afterAll(() => ctx.remove());

test('this process is itself', async () => {
  const self = await identify(ctx.run, process.pid);
  expect(self?.pid).toBe(process.pid);
  expect(self && (await isAlive(ctx.run, self))).toBe(true);
});

test('a process that ended is not alive, nor is a later one with its pid', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  const identity = await identify(ctx.run, child.pid ?? 0);
  if (!identity) throw new Error('the child has no identity');
  expect(await isAlive(ctx.run, identity)).toBe(true);
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await isAlive(ctx.run, identity)).toBe(false);
  // The pid of a process that lives, with the start of one that is gone.
  expect(await isAlive(ctx.run, { ...identity, pid: process.pid })).toBe(false);
});

test('no process, no identity', async () => {
  expect(await identify(ctx.run, 2 ** 30)).toBeUndefined();
});
