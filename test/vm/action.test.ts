import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ownHome } from '../support/home.ts';
import { program } from '../support/zfsdev.ts';

interface Step {
  readonly id?: string;
  readonly shell?: string;
  readonly run?: string;
}

const { home } = ownHome();
let folder: string;
let steps: readonly Step[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-action-'));
  await mkdir(join(folder, 'bin'));
  await symlink(program, join(folder, 'bin', 'zfsdev'));
  steps = (parse(await readFile(resolve('action.yml'), 'utf8')) as { runs: { steps: Step[] } }).runs.steps;
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Runs one step of the action as a runner does. */
async function step(
  id: string,
  env: Readonly<Record<string, string>>,
): Promise<{ output: string; text: string; status: number | null }> {
  const script = steps.find((each) => each.id === id)?.run;
  if (script === undefined) throw new Error(`the action has no step ${id}`);
  const [file, outputs] = [join(folder, `${id}.sh`), join(folder, 'outputs')];
  await writeFile(file, script);
  await writeFile(outputs, '');
  const { stdout, stderr, status } = spawnSync('bash', ['--noprofile', '--norc', '-eo', 'pipefail', file], {
    encoding: 'utf8',
    env: {
      ...process.env,
      PATH: `${join(folder, 'bin')}:${process.env['PATH'] ?? ''}`,
      ZFSDEV_HOME: home,
      GITHUB_OUTPUT: outputs,
      TEMPLATE: 'zfs-test',
      ...env,
    },
  });
  return { output: await readFile(outputs, 'utf8'), text: stdout + stderr, status };
}

it('finds the keys of both caches, saves the machine and runs a script in a fork', async () => {
  const { output } = await step('key', {});
  expect(output).toMatch(/^key=[0-9a-f]{64}\nimage=[0-9a-f]{64}\n$/);
  expect((await step('warm', {})).status).toBe(0);
  const script = 'pool=testpool\nzpool get -H -o value health "$pool"\ncat /root/notes\nexit 9';
  await writeFile(join(folder, 'notes'), "it's here\n");
  const run = await step('run', {
    SCRIPT: script,
    OPTIONS: `--copy-in\n${join(folder, 'notes')}:/root/notes\n`,
  });
  expect(run.text).toContain("ONLINE\nit's here\n");
  expect(run.status).toBe(9);
});
