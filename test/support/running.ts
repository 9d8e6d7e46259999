import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import type { InstancePaths } from '../../src/host/paths.ts';

/** Has an instance count as running: a process that names its pid file among its arguments, as QEMU does. Gives its end. */
export async function processOf({ pid }: InstancePaths): Promise<() => Promise<void>> {
  await writeFile(pid, '');
  const child = spawn('tail', ['-f', pid], { stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  await writeFile(pid, `${child.pid}\n`);
  return async () => {
    child.kill('SIGKILL');
    await ended;
  };
}
