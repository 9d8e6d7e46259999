import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createRun, endedOutright, printable, type Run } from '../../../src/host/run.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
let run: Run;

beforeEach(async () => {
  ctx = await testContext();
  run = ctx.run;
});
afterEach(() => ctx.remove());

const node = (code: string): [string, string, string] => [process.execPath, '-e', code];
const read = { effect: 'read', deadline: 30_000 } as const;
const forever = node('process.stdout.write("up\\n"); setInterval(() => {}, 1000)');

test('gives exit code and output, and passes arguments whole', async () => {
  const argv = [
    process.execPath,
    '-e',
    'console.log(process.argv[1]); console.error(2)',
    '$HOME "a"\n*',
  ] as const;
  expect(await run(argv, read)).toEqual({ exitCode: 0, stdout: '$HOME "a"\n*', stderr: '2' });
});

test('input, environment and folder reach it; messages are not translated', async () => {
  const code = `process.stdin.on('data', (d) => console.log(String(d), process.env.A, process.env.LC_ALL, process.cwd()))`;
  const { stdout } = await run(node(code), { ...read, input: 'in', env: { A: 'a' }, cwd: ctx.folder });
  expect(stdout).toBe(`in a C.UTF-8 ${ctx.folder}`);
});

test('an exit code is a failure with the last words, unless it is an answer', async () => {
  const argv = node('console.error("because"); process.exit(3)');
  await expect(run(argv, read)).rejects.toMatchObject({
    reason: 'process',
    message: `${process.execPath} failed with exit code 3`,
    detail: 'because',
    data: { exitCode: 3, signal: null },
  });
  expect(await run(argv, { ...read, accept: [3] })).toMatchObject({ exitCode: 3 });
});

test('a program that is not there names the package that has it', async () => {
  const bare = createRun({ env: { PATH: ctx.folder }, dryRun: false });
  await expect(bare(['mmdebstrap'], read)).rejects.toMatchObject({ reason: 'dependency', exitCode: 5 });
  await expect(bare(['no-such-thing'], read)).rejects.toMatchObject({
    reason: 'dependency',
    hint: 'zfsdev doctor shows what is missing',
  });
});

test('killed by a signal is told apart from an exit code', async () => {
  await expect(run(node('process.kill(process.pid, "SIGKILL")'), read)).rejects.toMatchObject({
    reason: 'process',
    message: `${process.execPath} was killed by SIGKILL`,
    data: { signal: 'SIGKILL', exitCode: null },
  });
});

test('a deadline that no timer can be set to does not end it at once', async () => {
  const { stdout } = await run(node('setTimeout(() => console.log("done"), 50)'), {
    ...read,
    deadline: 2 ** 40,
  });
  expect(stdout).toBe('done');
});

test('the deadline ends it', async () => {
  await expect(run(forever, { effect: 'read', deadline: 200 })).rejects.toMatchObject({
    reason: 'deadline',
    exitCode: 124,
  });
});

test('the signal ends it', async () => {
  const controller = new AbortController();
  const running = run(forever, { ...read, signal: controller.signal, onLine: () => controller.abort() });
  await expect(running).rejects.toMatchObject({ reason: 'interrupted', exitCode: 130 });
});

test('nothing that it has started outlives it, where that was asked for', async () => {
  const controller = new AbortController();
  const running = run(['sh', '-c', 'sleep 7200 & echo up; wait'], {
    ...read,
    ...endedOutright,
    signal: controller.signal,
    onLine: () => controller.abort(),
  });
  // The sleep holds the output open, whose end is waited for: where the shell alone is killed, that never comes.
  await expect(running).rejects.toMatchObject({ reason: 'interrupted' });
});

test('lines of both streams come as they are written, and into the log file', async () => {
  const lines: string[] = [];
  const logFile = join(ctx.folder, 'log');
  await run(node('console.log("a"); console.error("b")'), {
    ...read,
    onLine: (line) => lines.push(line),
    logFile,
  });
  expect(lines.sort()).toEqual(['a', 'b']);
  expect((await readFile(logFile, 'utf8')).split('\n').sort()).toEqual(['', 'a', 'b']);
});

test('a writing call under --dry-run is a bug; a reading one runs', async () => {
  const dry = createRun({ env: process.env, dryRun: true });
  await expect(dry(node('0'), { effect: 'write', deadline: 1000 })).rejects.toThrow('under --dry-run');
  expect(await dry(node('0'), read)).toMatchObject({ exitCode: 0 });
});

test('commands are shown so that they can be pasted', async () => {
  const shown: string[] = [];
  const verbose = createRun({ env: process.env, dryRun: false, verbose: (command) => shown.push(command) });
  await verbose([process.execPath, '-e', '0', "it's", ''], read);
  expect(shown).toEqual([`${process.execPath} -e 0 'it'\\''s' ''`]);
  expect(printable(['a=b', 'x y', '$(x)'])).toBe("a=b 'x y' '$(x)'");
});
