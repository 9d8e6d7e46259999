import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { basename, join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { takeSocketPlace } from '../../../src/zvol/sockets.ts';
import { testContext, type TestContext } from '../../support/context.ts';

const root = resolve(import.meta.dirname, '../../..');
let ctx: TestContext;
let child: ChildProcess | undefined;

beforeEach(async () => {
  ctx = await testContext();
});
afterEach(async () => {
  child?.kill('SIGKILL');
  child = undefined;
  await ctx.remove();
});

const names = async (): Promise<string[]> => (await readdir(ctx.paths.zvolSockets)).sort();

/** Another program that has a socket there, by the time this returns. */
async function another(): Promise<ChildProcess> {
  await mkdir(ctx.paths.zvolSockets, { recursive: true });
  const code = `const { tryLock } = require('fs-native-extensions'); const fs = require('fs');
    if (!tryLock(fs.openSync(process.argv[1] + '.lock', 'a+'))) process.exit(1);
    require('net').createServer().listen(process.argv[1], () => console.log('there'));`;
  const started = spawn(process.execPath, ['-e', code, join(ctx.paths.zvolSockets, 'other')], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(started.stdout, 'data');
  return started;
}

it('a socket is nobody else’s, and is gone when it was released', async () => {
  const [one, two] = await Promise.all([takeSocketPlace(ctx), takeSocketPlace(ctx)]);
  expect(one.path).not.toBe(two.path);
  expect((await stat(ctx.paths.zvolSockets)).mode & 0o777).toBe(0o700);
  const server = createServer().listen(one.path);
  await once(server, 'listening');
  await two.release();
  expect(await names()).toEqual([basename(one.path), `${basename(one.path)}.lock`]);
  await new Promise((done) => server.close(done));
  await one.release();
  expect(await names()).toEqual([]);
});

it('that of a program that was killed is taken away by the next one, and no other', async () => {
  child = await another();
  const own = await takeSocketPlace(ctx);
  const ownLock = `${basename(own.path)}.lock`;
  expect(await names()).toEqual([ownLock, 'other', 'other.lock'].sort());
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
  expect(await names()).toContain('other');
  const next = await takeSocketPlace(ctx);
  expect(await names()).toEqual([ownLock, `${basename(next.path)}.lock`].sort());
  await next.release();
  expect(await names()).toEqual([ownLock]);
  await own.release();
});
