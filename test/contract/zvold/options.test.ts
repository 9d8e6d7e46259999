import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-options-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

it.each([
  [[], '--pool NAME is missing'],
  [['--pool', 'tank', '--largest-import', '8GiB'], '--largest-import 8GiB: give a number of bytes'],
  [['--pool', 'tank', '--largest-import', '0'], '--largest-import 0: give a number of bytes'],
  [['--pool', 'tank', '--listen', '0.0.0.0:1'], '--listen wants --certificate and --key'],
])('a daemon with the options %o does not begin, and says why', (options, words) => {
  const program = resolve('dist/guest/zvold.cjs');
  const place = ['--folder', join(folder, 'state'), '--socket', join(folder, 's', 'socket')];
  const ended = spawnSync(process.execPath, [program, ...place, ...options], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  expect({ status: ended.status, stderr: ended.stderr }).toEqual({
    status: 1,
    stderr: expect.stringContaining(words) as string,
  });
});
