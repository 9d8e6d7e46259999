import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { shell } from '../support/zfsdev.ts';

declare module 'vitest' {
  interface ProvidedContext {
    vmHome: string;
  }
}

/**
 * Builds the image once, in a state home of this run's own. `ZFSDEV_TEST_HOME` keeps one between runs while somebody
 * works on the tests.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const kept = process.env['ZFSDEV_TEST_HOME'];
  const home = kept ?? (await mkdtemp(join(tmpdir(), 'zfsdev-vm-')));
  const zfsdev = shell(home);
  const build = await zfsdev('image', 'build');
  if (build.exitCode !== 0)
    throw new Error(`the image could not be built:\n${build.stdout}\n${build.stderr}`);
  project.provide('vmHome', home);
  return async () => {
    const { stdout } = await zfsdev('list', '--json');
    const left = (JSON.parse(stdout) as { instances: { name: string }[] }).instances.map(({ name }) => name);
    if (left.length > 0) await zfsdev('delete', '--force', ...left);
    if (kept === undefined) await rm(home, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`tests left machines behind: ${left.join(', ')}`);
  };
}
