import { build } from 'esbuild';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Result, Shell } from './zfsdev.ts';

/**
 * Bundles a program of the tests, copies it into a machine and runs it there with Node: what asks a guest a hundred times is done
 * sooner inside it than through as many round trips.
 * @param entry the program's file, from the root of the checkout.
 */
export async function runInGuest(
  zfsdev: Shell,
  machine: string,
  entry: string,
  ...args: readonly string[]
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-guest-'));
  const name = `${basename(entry, '.ts')}.mjs`;
  try {
    await build({
      entryPoints: [entry],
      outfile: join(folder, name),
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      minifySyntax: true,
      minifyWhitespace: true,
      logLevel: 'warning',
      // CommonJS dependencies inside an ES module bundle still call require.
      banner: {
        js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);",
      },
    });
    const copied = await zfsdev('copy', join(folder, name), `${machine}:/root/${name}`);
    if (copied.exitCode !== 0) return copied;
    // Without Node's own words on files that a daemon which was killed left open.
    return await zfsdev('exec', machine, '--', 'node', '--no-warnings', `/root/${name}`, ...args);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
