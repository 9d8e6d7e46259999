import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Argv } from '../../../src/zvold/command.ts';
import { Standby } from '../../../src/zvold/standby.ts';

let folder: string;
let standby: Standby;
/** Notes that it was started, and by what number; then does what it reads. */
let program: Argv;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-standby-'));
  const script = join(folder, 'program');
  await writeFile(join(folder, 'started'), '');
  await writeFile(script, `echo $$ >>'${folder}/started'\nscript=$(cat)\neval "$script"\n`);
  program = ['sh', script];
  standby = new Standby();
});

afterEach(async () => {
  vi.useRealTimers();
  standby.end();
  await rm(folder, { recursive: true, force: true });
});

const started = async (): Promise<string[]> =>
  (await readFile(join(folder, 'started'), 'utf8')).split('\n').filter((line) => line !== '');
const call = (input: string) => standby.command(program, { deadline: 60_000, input });
const isAlive = (pid = ''): boolean => {
  try {
    return process.kill(Number(pid), 0);
  } catch {
    return false;
  }
};

it('has the next program waiting before it is called, each for one call', async () => {
  const { stdout: first } = await call('echo $$');
  await expect.poll(started).toHaveLength(2);
  const [, waiting] = await started();
  expect(await call('echo $$; echo words >&2; exit 3')).toEqual({
    exitCode: 3,
    stdout: `${waiting}\n`,
    stderr: 'words\n',
  });
  expect(first).not.toBe(`${waiting}\n`);
  await expect.poll(started).toHaveLength(3);
});

it('starts one that is called in a moment, and no second one', async () => {
  standby.prepare(program);
  standby.prepare(program);
  await expect.poll(started).toHaveLength(1);
  const [waiting] = await started();
  expect(await call('echo $$')).toMatchObject({ exitCode: 0, stdout: `${waiting}\n` });
});

it('starts another one for the second of two at once', async () => {
  standby.prepare(program);
  const both = await Promise.all([call('echo $$'), call('echo $$')]);
  expect(new Set(both.map(({ stdout }) => stdout)).size).toBe(2);
});

it('starts another one where the one that waited has died', async () => {
  standby.prepare(program);
  await expect.poll(started).toHaveLength(1);
  const [dead] = await started();
  process.kill(Number(dead), 'SIGKILL');
  await expect.poll(() => isAlive(dead)).toBe(false);
  expect(await call('echo alive')).toMatchObject({ exitCode: 0, stdout: 'alive\n' });
});

it('lets one that was taken take its time, however long it had waited', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  standby.prepare(program);
  vi.advanceTimersByTime(9_999);
  const go = join(folder, 'go');
  const answer = call(`until [ -e '${go}' ]; do :; done; echo whole`);
  vi.advanceTimersByTime(60_000 - 1);
  await writeFile(go, '');
  expect(await answer).toEqual({ exitCode: 0, stdout: 'whole\n', stderr: '' });
});

it('starts nothing for a call that was given up before', async () => {
  const signal = AbortSignal.abort();
  const given = standby.command(program, { deadline: 60_000, input: 'echo', signal });
  await expect(given).rejects.toMatchObject({ code: 'CANCELLED' });
});

it('ends what waits in vain, and all of it at its own end', async () => {
  const impatient = new Standby(1);
  impatient.prepare(program);
  standby.prepare(program);
  await expect.poll(started).not.toHaveLength(0);
  standby.end();
  await expect.poll(async () => (await started()).filter(isAlive)).toEqual([]);
  const before = (await started()).length;
  standby.prepare(program);
  expect(await call('echo anew')).toMatchObject({ stdout: 'anew\n' });
  expect(await started()).toHaveLength(before + 1);
});
