// Rewrites what is generated and committed: lima-configs/, from templates/ and provision/; the contract of zvold, from proto/.
import { build } from 'esbuild';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import protobuf from 'protobufjs';
import { format, resolveConfig } from 'prettier';

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

// The guest's daemon is one file, so it carries its contract with it.
const contract = new protobuf.Root();
contract.resolvePath = (_, target) => (target.startsWith('google/') ? target : join(root, 'proto', target));
// One after the other, so that their order is always the same.
for (const name of ['mvirt/zfs/zfs.proto', 'zfsdev/zvol/v1/zvol.proto']) await contract.load(name);
const file = 'src/zvold/contract.ts';
const text = `// Generated from proto/ by npm run generate.
export const contract = ${JSON.stringify(contract.toJSON())};
`;
await writeFile(
  join(root, file),
  await format(text, { ...(await resolveConfig(file)), parser: 'typescript' }),
);
console.log(file);
