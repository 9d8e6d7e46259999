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
 * Builds the images and the warm state once, in a state home of this run's own, of which each file gets links
 * (support/home.ts). `ZFSDEV_TEST_HOME` keeps one between runs while somebody works on the tests.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const kept = process.env['ZFSDEV_TEST_HOME'];
  const home = kept ?? (await mkdtemp(join(tmpdir(), 'zfsdev-vm-')));
  const zfsdev = shell(home);
  for (const args of [
    ['image', 'build'],
    ['image', 'build', '--flavour', 'base', '--tools'],
    ['warm', 'build', 'zfs-test'],
  ]) {
    const { exitCode, stdout, stderr } = await zfsdev(...args);
    if (exitCode !== 0) throw new Error(`zfsdev ${args.join(' ')} failed:\n${stdout}\n${stderr}`);
  }
  project.provide('vmHome', home);
  return async () => {
    if (kept === undefined) await rm(home, { recursive: true, force: true });
  };
}
