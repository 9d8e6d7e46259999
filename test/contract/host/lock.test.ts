import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isLocked, lock, lockWaiting } from '../../../src/host/lock.ts';
import { testContext, type TestContext } from '../../support/context.ts';

const root = resolve(import.meta.dirname, '../../..');
const never = new AbortController().signal;
let ctx: TestContext;
let path: string;
let children: ChildProcess[];

beforeEach(async () => {
  ctx = await testContext();
  path = join(ctx.folder, 'locks/a.lock');
  children = [];
});
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL');
  await ctx.remove();
});

/** Another process that holds the lock by the time this returns. */
async function holder(): Promise<ChildProcess> {
  const held = await lock(path, 'it');
  await held.release();
  const code = `const { tryLock } = require('fs-native-extensions'); const fs = require('fs');
    const fd = fs.openSync(process.argv[1], 'a+');
    if (!tryLock(fd)) process.exit(1);
    fs.ftruncateSync(fd); fs.writeSync(fd, process.pid + '\\n');
    console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['-e', code, path], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await once(child.stdout, 'data');
  return child;
}

test('one holder at a time, then the next', async () => {
  const first = await lock(path, '"a"');
  await expect(lock(path, '"a"')).rejects.toMatchObject({
    reason: 'locked',
    message: `"a" is being changed by another zfsdev (process ${process.pid})`,
  });
  expect(await isLocked(path)).toBe(true);
  await first.release();
  expect(await isLocked(path)).toBe(false);
  await (await lock(path, '"a"')).release();
});

test('a lock that never was is not held, and asking makes no file', async () => {
  expect(await isLocked(path)).toBe(false);
  expect(await isLocked(path)).toBe(false);
});

test('another process holds it; when that is killed, the lock is free', async () => {
  const child = await holder();
  await expect(lock(path, '"a"')).rejects.toMatchObject({
    reason: 'locked',
    data: { holder: String(child.pid) },
  });
  child.kill('SIGKILL');
  await once(child, 'exit');
  await (await lock(path, '"a"')).release();
});

test('a waiting one gets it when the holder dies', async () => {
  const child = await holder();
  const waiting = lockWaiting(path, never);
  child.kill('SIGKILL');
  await (await waiting).release();
});

test('waiting can be called off', async () => {
  const held = await lock(path, '"a"');
  const controller = new AbortController();
  const waiting = lockWaiting(path, controller.signal);
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ reason: 'interrupted' });
  await held.release();
});

test('looking whether it is held never makes somebody fail who takes it', async () => {
  await (await lock(path, '"a"')).release();
  let looking = true;
  const looks = (async () => {
    while (looking) await isLocked(path);
  })();
  for (let i = 0; i < 200; i += 1) await (await lock(path, '"a"')).release();
  looking = false;
  await looks;
});

test('a lock that cannot be opened is a failure that names it', async () => {
  await writeFile(join(ctx.folder, 'locks'), '');
  await expect(lock(path, '"a"')).rejects.toMatchObject({ reason: 'files' });
});

test.skipIf(process.platform !== 'linux')(
  'is held on a full disk, where nobody can be told by whom',
  async () => {
    await mkdir(join(ctx.folder, 'locks'), { recursive: true });
    // Takes any number of bytes as a disk without room does.
    await symlink('/dev/full', path);
    await (await lock(path, 'it')).release();
  },
);
