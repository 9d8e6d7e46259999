// Bundles the command line into dist/: one entry, one chunk a command, so that each command loads only what it needs.
import { build } from 'esbuild';
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import protobuf from 'protobufjs';
import typescript from 'typescript';

const { version } = JSON.parse(await readFile('package.json', 'utf8'));

// gRPC's reflection reads its contracts from files beside itself, which a bundle does not have: it gets them as it would have
// read them.
const inlineContracts = {
  name: 'inline-contracts',
  setup({ onLoad }) {
    const contracts = Object.fromEntries(
      ['v1', 'v1alpha'].map((name) => [
        `@grpc/reflection/build/src/implementations/reflection-${name}.js`,
        `@grpc/reflection/build/proto/grpc/reflection/${name}/reflection.proto`,
      ]),
    );
    for (const [module, file] of Object.entries(contracts)) {
      onLoad({ filter: new RegExp(`/node_modules/${module.replaceAll('.', '\\.')}$`) }, async ({ path }) => {
        const contract = JSON.stringify((await protobuf.load(`node_modules/${file}`)).toJSON());
        const text = await readFile(path, 'utf8');
        const inlined = text.replace(/\bloadSync(\)?)\((?:'[^']+'|protoPath), /, `fromJSON$1(${contract}, `);
        if (inlined === text) throw new Error(`${module} reads its contract in another way now`);
        return { contents: inlined };
      });
    }
  },
};

await rm('dist', { recursive: true, force: true });
await build({
  entryPoints: { zfsdev: 'src/main.ts', zvol: 'src/zvol/index.ts' },
  outdir: 'dist',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  minifySyntax: true,
  // Every command begins with reading its parts; names stay, for the stack of a bug.
  minifyWhitespace: true,
  chunkNames: 'chunks/[name]-[hash]',
  legalComments: 'linked',
  // A native addon finds its binary beside itself.
  external: ['fs-native-extensions'],
  define: { ZFSDEV_VERSION: JSON.stringify(version) },
  banner: {
    // CommonJS dependencies inside an ES module bundle still call require.
    js: "import { createRequire as zfsdevCreateRequire } from 'node:module';\nconst require = zfsdevCreateRequire(import.meta.url);",
  },
});
// The guest's agent: one file, since it is handed over with the seed, and small, since an emulated CPU has to start it.
await build({
  entryPoints: { agent: 'src/agent/main.ts' },
  outdir: 'dist/guest',
  outExtension: { '.js': '.mjs' },
  bundle: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  minify: true,
});
// The guest's volume manager: one file as well, with its libraries. Ubuntu 24.04 and Debian 12 have Node 18.
await build({
  entryPoints: { zvold: 'src/zvold/main.ts' },
  outdir: 'dist/guest',
  outExtension: { '.js': '.cjs' },
  bundle: true,
  format: 'cjs',
  platform: 'node',
  target: 'node18',
  minify: true,
  legalComments: 'linked',
  define: { ZFSDEV_VERSION: JSON.stringify(version) },
  plugins: [inlineContracts],
});
// What a script that imports zfsdev/zvol is checked against.
for (const name of ['index', 'api', 'messages']) {
  const source = await readFile(`src/zvol/${name}.ts`, 'utf8');
  const { outputText } = typescript.transpileDeclaration(source, { fileName: `${name}.ts` });
  await mkdir('dist/types', { recursive: true });
  await writeFile(`dist/types/${name}.d.ts`, outputText.replaceAll(/(from '\.\/\w+)\.ts'/g, "$1.js'"));
}
await chmod('dist/zfsdev.js', 0o755);
