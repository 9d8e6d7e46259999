import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import type { TestProject } from 'vitest/node';
import { machinesOf } from '../support/machines.ts';
import { shell } from '../support/zfsdev.ts';

declare module 'vitest' {
  interface ProvidedContext {
    limaHome: string;
  }
}

/**
 * Makes sure that there is a real limactl, and on Linux the cloud image that it then starts without a download.
 * `ZFSDEV_TEST_HOME` keeps a home with an image between runs; its path has to be short, for the sockets.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  requireLima();
  const kept = process.env['ZFSDEV_TEST_HOME'];
  const home = kept ?? (await mkdtemp(join(tmpdir(), 'zl-')));
  const zfsdev = shell(home);
  if (process.platform === 'linux') {
    const build = await zfsdev('image', 'build', '--flavour', 'cloud');
    if (build.exitCode !== 0)
      throw new Error(`the image could not be built:\n${build.stdout}\n${build.stderr}`);
  }
  project.provide('limaHome', home);
  return async () => {
    const { stdout } = await zfsdev('list', '--json');
    const left = (JSON.parse(stdout) as { instances: { name: string }[] }).instances.map(({ name }) => name);
    if (left.length > 0) await zfsdev('delete', '--force', ...left);
    const processes = await machinesOf(`${home}/`);
    if (kept === undefined) await rm(home, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`tests left machines behind: ${left.join(', ')}`);
    if (processes.length > 0) throw new Error(`tests left processes behind: ${processes.join(', ')}`);
  };
}

/** This lane fails where it can't run, as a lane that is skipped proves nothing. */
function requireLima(): void {
  if (process.getuid?.() === 0)
    throw new Error('Lima refuses to run as root: run the lima lane as an ordinary user');
  const { status, error, stderr } = spawnSync('limactl', ['--version'], { encoding: 'utf8' });
  if (error)
    throw new Error(
      'there is no limactl on PATH, which the lima lane drives: https://lima-vm.io/docs/installation/',
    );
  if (status !== 0) throw new Error(`limactl --version failed with exit code ${status}:\n${stderr}`);
}
