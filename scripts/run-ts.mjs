// Runs a TypeScript file of this repository: bundled to a temporary file first, since Node 20 runs JavaScript only.
import { build } from 'esbuild';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [file, ...rest] = process.argv.slice(2);
const folder = await mkdtemp(join(process.cwd(), 'node_modules', '.run-'));
try {
  const bundle = join(folder, 'main.mjs');
  await build({
    entryPoints: [file],
    outfile: bundle,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    logLevel: 'warning',
  });
  process.argv.splice(1, process.argv.length - 1, file, ...rest);
  await import(pathToFileURL(bundle).href);
} finally {
  await rm(folder, { recursive: true, force: true });
}
