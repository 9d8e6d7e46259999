// Bundles the command line into dist/: one entry, one chunk a command, so that each command loads only what it needs.
import { build } from 'esbuild';
import { chmod, readFile, rm } from 'node:fs/promises';

const { version } = JSON.parse(await readFile('package.json', 'utf8'));

await rm('dist', { recursive: true, force: true });
await build({
  entryPoints: { zfsdev: 'src/main.ts' },
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
await chmod('dist/zfsdev.js', 0o755);
