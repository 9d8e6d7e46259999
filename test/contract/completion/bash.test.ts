import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { buildProgram } from '../../../src/cli.ts';
import { bashScript } from '../../../src/completion/bash.ts';
import { commandModel } from '../../../src/completion/model.ts';

const run = promisify(execFile);

/** A state home with two instances, an image, and folders whose names zfsdev would not have given. */
let home: string;
let script: string;

beforeAll(async () => {
  vi.stubGlobal('ZFSDEV_VERSION', '0.0.0-test');
  home = await mkdtemp(join(tmpdir(), 'zfsdev completion '));
  for (const folder of [
    'instances/alpha',
    'instances/zfs-dev',
    'instances/$(touch pwned)',
    'images/abc123',
    'work/a folder',
  ]) {
    await mkdir(join(home, folder), { recursive: true });
  }
  await writeFile(join(home, 'work', 'mine.yaml'), '');
  script = join(home, 'completion.bash');
  await writeFile(
    script,
    bashScript(commandModel(buildProgram(() => Promise.resolve())), ['zfs-small', 'zfs-test']),
  );
});

afterAll(() => rm(home, { recursive: true, force: true }));

/** What bash offers for the last of these words, which it has split as it does at `=` and `:`. */
async function complete(...words: readonly string[]): Promise<string[]> {
  const probe = `
    set -u
    source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    [ "$(complete -p zfsdev)" = 'complete -F _zfsdev zfsdev' ] || exit 1
    _zfsdev zfsdev
    if ((\${#COMPREPLY[@]})); then printf '%s\\n' "\${COMPREPLY[@]}"; fi`;
  // If there is no bash, this fails, and so does the test: it is part of every machine that runs CI.
  const { stdout, stderr } = await run('bash', ['--norc', '-c', probe, 'probe', script, 'zfsdev', ...words], {
    cwd: join(home, 'work'),
    env: { PATH: process.env['PATH'], ZFSDEV_HOME: home, HOME: home },
  });
  // compopt complains outside of a real completion, and is told to do so in silence.
  expect(stderr).toBe('');
  return [...new Set(stdout.split('\n').filter((line) => line !== ''))].sort();
}

describe('the bash completion', () => {
  it('is well-formed', async () => {
    await run('bash', ['-n', script]);
  });

  it.each<[string[], string[]]>([
    [['st'], ['start', 'stop']],
    [['image', 're'], ['remove']],
    [
      ['image', 'r'],
      ['remove', 'rm'],
    ],
    [
      ['up', ''],
      ['a folder', 'alpha', 'mine.yaml', 'zfs-dev', 'zfs-small', 'zfs-test'],
    ],
    [
      ['up', 'zfs-'],
      ['zfs-dev', 'zfs-small', 'zfs-test'],
    ],
    [['up', '--su'], ['--suite']],
    [
      ['up', '--suite', ''],
      ['sid', 'trixie'],
    ],
    [
      ['up', '--suite', '='],
      ['sid', 'trixie'],
    ],
    [['up', '--suite', '=', 's'], ['sid']],
    [['up', '--name', ''], []],
    [['up', '--name', 'x', 'al'], ['alpha']],
    [
      ['delete', 'alpha', ''],
      ['alpha', 'zfs-dev'],
    ],
    [['inspect', 'alpha', ''], []],
    [['exec', 'al'], ['alpha']],
    [['exec', 'alpha', '--', ''], []],
    [['exec', 'alpha', '--', '-'], []],
    [['copy', 'mi'], ['mine.yaml']],
    [['copy', 'al'], ['alpha:']],
    [['copy', 'alpha', ':'], []],
    [['copy', 'alpha', ':', '/e'], []],
    [['image', 'rm', ''], ['abc123']],
    [
      ['completion', ''],
      ['bash', 'fish', 'zsh'],
    ],
    [['help', 'doc'], ['doctor']],
    [['--verb'], ['--verbose']],
  ])('offers for %j: %j', async (words, expected) => {
    expect(await complete(...words)).toEqual(expected);
  });

  it('never runs what it finds as a name', async () => {
    await complete('delete', '');
    await expect(run('test', ['-e', join(home, 'work', 'pwned')])).rejects.toThrow();
  });

  it('offers nothing, without a word, where there is no state home', async () => {
    const before = home;
    home = join(home, 'work');
    try {
      await mkdir(join(home, 'work'), { recursive: true });
      expect(await complete('delete', '')).toEqual([]);
    } finally {
      await rm(join(home, 'work'), { recursive: true });
      home = before;
    }
  });
});
