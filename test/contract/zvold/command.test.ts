import { expect, it } from 'vitest';
import { runCommand } from '../../../src/zvold/command.ts';

const sh = (script: string): [string, ...string[]] => ['sh', '-c', script];

it('gives what a program said, and how it ended', async () => {
  expect(await runCommand(sh('echo out; echo bad >&2; exit 3'), { deadline: 60_000 })).toEqual({
    exitCode: 3,
    stdout: 'out\n',
    stderr: 'bad\n',
  });
});

it('gives a program what it is to read, and bears one that does not read it', async () => {
  const input = 'x'.repeat(1_000_000);
  expect((await runCommand(['wc', '-c'], { deadline: 60_000, input })).stdout.trim()).toBe('1000000');
  expect((await runCommand(['true'], { deadline: 60_000, input })).exitCode).toBe(0);
});

it('tells that a program was killed at its deadline, and never takes that for an answer', async () => {
  await expect(runCommand(sh('exec sleep 1000'), { deadline: 50 })).rejects.toMatchObject({
    code: 'DEADLINE_EXCEEDED',
    message: 'sh -c did not end in 0.05 s, and was killed',
  });
});

it('does not wait for one that no signal ends', async () => {
  // Its grandchild holds its output, as a program does that hangs in the kernel.
  await expect(runCommand(sh('sleep 5 & wait'), { deadline: 50 })).rejects.toMatchObject({
    code: 'DEADLINE_EXCEEDED',
  });
});

it('tells a program that somebody killed from one that failed', async () => {
  await expect(runCommand(sh('kill -9 $$'), { deadline: 60_000 })).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: 'sh -c was killed by SIGKILL',
  });
});

it('tells that a program is not there', async () => {
  await expect(runCommand(['no-such-program-here'], { deadline: 60_000 })).rejects.toMatchObject({
    code: 'UNAVAILABLE',
  });
});

it('is ended by its signal', async () => {
  const stop = new AbortController();
  const running = runCommand(sh('exec sleep 1000'), { deadline: 60_000, signal: stop.signal });
  stop.abort();
  await expect(running).rejects.toMatchObject({ code: 'CANCELLED' });
});
