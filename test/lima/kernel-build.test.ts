import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { tinyKernel } from '../support/tiny-kernel.ts';
import { shell } from '../support/zfsdev.ts';
import { expectNothingLeft, limaMachines, patience } from './support.ts';

const home = inject('limaHome');
const zfsdev = shell(home);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-kernel-'));
  if (process.platform !== 'linux') return;
  // Installing the tools in an emulated machine takes a quarter of an hour, and a network.
  const build = await zfsdev('image', 'build', '--flavour', 'cloud', '--tools');
  expect({ exitCode: build.exitCode, stderr: build.stderr }).toMatchObject({ exitCode: 0 });
});

afterAll(() => rm(folder, { recursive: true, force: true }));

it('a kernel is built in a machine of limactl, which is then gone', async () => {
  const source = await tinyKernel(join(folder, 'tiny'));
  const output = join(folder, 'output');
  const common = ['--config', 'tinyconfig', '--zfs', 'none', '--localversion', '-test', '--output', output];
  const words = ['build-kernel', '--driver', 'lima', '--source', source, ...common, ...patience];
  const kept = await zfsdev(...words);
  expect({ exitCode: kept.exitCode, stderr: kept.stderr }).toMatchObject({ exitCode: 0 });
  expect(await limaMachines(home)).toEqual([expect.stringMatching(/^kernel-build-/)]);

  const result = await zfsdev(...words, '--resume', '--delete-after', '--json');
  expect({ exitCode: result.exitCode, stderr: result.stderr }).toMatchObject({ exitCode: 0 });
  const answer = JSON.parse(result.stdout.split('\n').at(-1) ?? '') as Record<string, unknown>;
  expect(answer).toMatchObject({ release: '6.99.0-test', usedAfterBytes: 0 });
  expect(answer['freedBytes']).toBeGreaterThan(2 ** 20);
  expect((await readdir(output)).sort()).toEqual(['kernel-6.99.0-test.log', 'kernel-6.99.0-test.tar.zst']);
  expect(await readFile(join(output, 'kernel-6.99.0-test.log'), 'utf8')).toContain('CC      kernel/one.o');
  await expectNothingLeft(home);
});
