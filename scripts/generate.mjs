// Rewrites what is generated and committed: lima-configs/, from templates/ and provision/.
import { build } from 'esbuild';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
// Inside the repository, where the bundle finds its packages, the templates and the scripts.
const bundle = join(root, 'node_modules', '.cache', `zfsdev-generate-${process.pid}.mjs`);

try {
  await build({
    absWorkingDir: root,
    entryPoints: ['src/lima/generate.ts'],
    outfile: bundle,
    bundle: true,
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node20',
  });
  const { generateLimaConfigs } = await import(pathToFileURL(bundle));
  for (const [file, text] of await generateLimaConfigs()) {
    await mkdir(dirname(join(root, file)), { recursive: true });
    await writeFile(join(root, file), text);
    console.log(file);
  }
} finally {
  await rm(bundle, { force: true });
}
