import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

const runner = resolve(import.meta.dirname, '../../../provision/run-scripts.sh');
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev provision-'));
  await mkdir(join(folder, 'scripts'));
});

afterEach(() => rm(folder, { recursive: true, force: true }));

async function runAll(
  scripts: Readonly<Record<string, string>>,
): Promise<{ exitCode: number | null; state: string; log: string; stdout: string }> {
  for (const [name, text] of Object.entries(scripts))
    await writeFile(join(folder, 'scripts', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  const [state, log] = [join(folder, 'run/state'), join(folder, 'log')];
  const { status, stdout } = spawnSync('sh', [runner], {
    encoding: 'utf8',
    env: {
      PATH: process.env['PATH'],
      ZFSDEV_PROVISION_SCRIPTS: join(folder, 'scripts'),
      ZFSDEV_PROVISION_STATE: state,
      ZFSDEV_PROVISION_LOG: log,
    },
  });
  const read = async (path: string): Promise<string> => (await readFile(path, 'utf8')).trim();
  return { exitCode: status, state: await read(state), log: await read(log), stdout };
}

it('runs all scripts in the order of their names, and keeps what they say', async () => {
  const outcome = await runAll({ '02-b.sh': 'echo second >&2', '01-a.sh': 'echo first' });
  expect(outcome).toEqual({ exitCode: 0, state: 'done', log: 'first\nsecond', stdout: 'first\nsecond\n' });
});

it('stops at the first that fails, and says which and how', async () => {
  const outcome = await runAll({ '01-a.sh': 'echo "no moon" >&2; exit 3', '02-b.sh': 'echo never' });
  expect(outcome).toMatchObject({ exitCode: 1, state: 'failed 01-a.sh 3', log: 'no moon' });
});

it('tells what runs while it runs', async () => {
  const outcome = await runAll({ '01-a.sh': `cat "${join(folder, 'run/state')}"` });
  expect(outcome.log).toBe('running 01-a.sh');
});

it('is done at once without scripts, and forgets the words of the boot before', async () => {
  await writeFile(join(folder, 'log'), 'of old');
  expect(await runAll({})).toMatchObject({ exitCode: 0, state: 'done', log: '' });
});
