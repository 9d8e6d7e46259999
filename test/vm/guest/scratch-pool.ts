// What the programs that run inside a machine share: a pool of their own, beside the one that zvold manages.
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCommand } from '../../../src/zvold/command.ts';
import { inventory, newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import { thisMachine } from '../../../src/zvold/machine.ts';

export const MiB = 2 ** 20;

/** Where the programs have their files. */
export const folder = '/root/faults';

/** Operations on a pool, without a daemon around them. */
export const keeperOf = (pool: string): Keeper => newKeeper(pool, runCommand, thisMachine);

/** The volumes of a pool, in a row. */
export const names = async (keeper: Keeper): Promise<string> =>
  (await inventory(keeper)).volumes.map(({ name }) => name).join(' ');

/** Runs a program to its end; gives what it said. @throws Error if it fails */
export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

/** Makes a pool on a sparse file in a folder; gives what takes it away again, whatever it has. */
export function scratchPool(pool: string, folder: string, size: number): () => void {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${pool}.img`);
  writeFileSync(file, '');
  truncateSync(file, size);
  run('zpool', 'create', '-o', 'ashift=12', '-o', 'cachefile=none', '-O', 'mountpoint=none', pool, file);
  return () => {
    run('zpool', 'destroy', '-f', pool);
    rmSync(file);
  };
}

/** Throws with what was expected, if it is not so. */
export function must(isSo: boolean, expected: string): void {
  if (!isSo) throw new Error(`expected: ${expected}`);
}

/** The code and the words of what is refused. @throws Error if it is not */
export async function refusal(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await work;
  } catch (error) {
    const {
      code = '',
      reason = code,
      message,
    } = error as { code?: string; reason?: string; message: string };
    return { code: reason, message };
  }
  throw new Error('expected a refusal, and it was done');
}

/** Runs the parts one after the other, with a line for each; gives the exit code. */
export async function runParts(
  parts: readonly (readonly [what: string, run: () => Promise<void>])[],
): Promise<number> {
  let failed = 0;
  // A look at a pool now and then keeps no process going, and some parts wait for nothing else.
  const going = setInterval(() => undefined, 60_000);
  for (const [what, part] of parts) {
    try {
      await part();
      console.log(`ok: ${what}`);
    } catch (error) {
      failed += 1;
      console.log(
        `failed: ${what}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
    }
  }
  clearInterval(going);
  return failed === 0 ? 0 : 1;
}
