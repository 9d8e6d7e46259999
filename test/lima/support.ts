import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { machinesOf } from '../support/machines.ts';

/** How long a start may take, where it is emulated beside others. */
export const patience = ['--timeout', '20m'] as const;

/** The machines that Lima has in a state home, by their folders. */
export async function limaMachines(home: string): Promise<string[]> {
  const names = await readdir(join(home, 'lima')).catch(() => []);
  return names.filter((name) => !/^[._]/.test(name));
}

/** Fails unless a deleted machine is gone with every folder and process. */
export async function expectNothingLeft(home: string): Promise<void> {
  expect(await limaMachines(home)).toEqual([]);
  expect(await readdir(join(home, 'instances'))).toEqual([]);
  // A kept ssh connection takes a moment to see that the other end is gone.
  await expect.poll(() => machinesOf(`${home}/`), { timeout: 30_000 }).toEqual([]);
}
