import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { findImage } from '../../src/image/build.ts';
import { recipeOf } from '../../src/image/recipe.ts';
import { limaEnvironment } from '../../src/vm/lima-start.ts';
import { testContext } from '../support/context.ts';
import { machinesOf } from '../support/machines.ts';
import type { Shell } from '../support/zfsdev.ts';

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

interface Disk {
  readonly path: string;
  readonly virtualBytes: number;
  readonly actualBytes: number;
}

/** The disk of a machine, the one with the root first, as `usage` tells it. */
export async function diskOf(zfsdev: Shell, name: string, ...flags: readonly string[]): Promise<Disk> {
  const { stdout } = await zfsdev('usage', '--json', ...flags);
  const { machines } = JSON.parse(stdout) as { machines: { name: string; disks: Disk[] }[] };
  const [disk] = machines.find((machine) => machine.name === name)?.disks ?? [];
  if (!disk) throw new Error(`usage shows no disk of ${name}: ${stdout}`);
  return disk;
}

/** What somebody needs who calls limactl alone: variables that have QEMU work here, and the local image, if there is one. */
export async function bareLima(home: string): Promise<{ env: Record<string, string>; image?: string }> {
  const ctx = await testContext({ env: { ZFSDEV_HOME: home } });
  try {
    const env = await limaEnvironment(ctx);
    if (process.platform !== 'linux') return { env };
    const found = await findImage(ctx, await recipeOf({ flavour: 'cloud', suite: 'trixie' }));
    if (!found) throw new Error(`there is no cloud image in ${home}`);
    return { env, image: found.disk };
  } finally {
    await ctx.remove();
  }
}
