import { build } from 'esbuild';
import { resolve } from 'node:path';
import { expect, it } from 'vitest';

it('what only reflection needs is not loaded at the start', async () => {
  const root = resolve(import.meta.dirname, '../../..');
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/zvold/main.ts'],
    bundle: true,
    packages: 'external',
    format: 'esm',
    platform: 'node',
    write: false,
    metafile: true,
    logLevel: 'silent',
  });
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    for (const { path, kind } of metafile.inputs[file]?.imports ?? [])
      if (kind === 'import-statement') visit(path);
  };
  visit('src/zvold/main.ts');
  expect([...reached]).toContain('@grpc/grpc-js');
  expect([...reached]).toContain('src/zvold/standard-services.ts');
  expect([...reached].filter((path) => /reflection|proto-loader/.test(path))).toEqual([]);
});
