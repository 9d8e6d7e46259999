import { expect } from 'vitest';
import type { Shell } from './zfsdev.ts';

/** Runs a command in a guest, which has to go well and say nothing on standard error; gives its output. */
export async function inGuest(zfsdev: Shell, name: string, ...argv: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await zfsdev('exec', name, '--', ...argv);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  return stdout.trim();
}

/** As `inGuest`, a script for the guest's shell. */
export function scriptInGuest(zfsdev: Shell, name: string, script: string): Promise<string> {
  return inGuest(zfsdev, name, 'sh', '-c', script);
}
