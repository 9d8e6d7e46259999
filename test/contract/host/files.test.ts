import { chmod, mkdir, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  actualSize,
  exists,
  makePrivateFolder,
  readIfExists,
  writeFileAtomically,
} from '../../../src/host/files.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
beforeEach(async () => {
  ctx = await testContext();
});
afterEach(() => ctx.remove());

const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8);

test('a file is replaced whole, private, with nothing beside it', async () => {
  const path = join(ctx.folder, 'state.json');
  await writeFile(path, 'old');
  const before = await open(path);
  await writeFileAtomically(path, 'new');
  expect(await readFile(path, 'utf8')).toBe('new');
  expect(await modeOf(path)).toBe('600');
  // Who had it open still reads the old one.
  expect(await before.readFile('utf8')).toBe('old');
  await before.close();
  expect(await readdir(ctx.folder)).toEqual(['state.json']);
});

test('a write that fails leaves the old file and no temporary one', async () => {
  const path = join(ctx.folder, 'taken');
  await mkdir(join(path, 'inner'), { recursive: true });
  await expect(writeFileAtomically(path, 'new')).rejects.toMatchObject({ reason: 'files' });
  expect(await readdir(ctx.folder)).toEqual(['taken']);
  await expect(writeFileAtomically(join(ctx.folder, 'no/such/x'), '')).rejects.toMatchObject({
    reason: 'files',
  });
});

test('many writers at once: one of them, whole', async () => {
  const path = join(ctx.folder, 'state.json');
  const contents = Array.from({ length: 20 }, (_, i) => String(i).repeat(10_000));
  await Promise.all(contents.map((content) => writeFileAtomically(path, content)));
  expect(contents).toContain(await readFile(path, 'utf8'));
  expect(await readdir(ctx.folder)).toEqual(['state.json']);
});

test('folders are private, parents included, and may be there already', async () => {
  const path = join(ctx.folder, 'a/b');
  await makePrivateFolder(path);
  await makePrivateFolder(path);
  expect([await modeOf(path), await modeOf(join(ctx.folder, 'a'))]).toEqual(['700', '700']);
  await writeFile(join(ctx.folder, 'file'), '');
  await expect(makePrivateFolder(join(ctx.folder, 'file/x'))).rejects.toMatchObject({ reason: 'files' });
});

test("'it is not there' and 'it could not be asked' are two answers", () => {
  const absent = join(ctx.folder, 'absent');
  expect([readIfExists(absent), exists(absent), actualSize(absent)]).toEqual([undefined, false, 0]);
  const files: unknown = expect.objectContaining({ reason: 'files' });
  expect(() => readIfExists(ctx.folder)).toThrow(files);
  const tooLong = join(ctx.folder, 'x'.repeat(300));
  expect(() => exists(tooLong)).toThrow(files);
  expect(() => actualSize(tooLong)).toThrow(files);
});

test('the actual size is blocks, not length', async () => {
  const path = join(ctx.folder, 'sparse');
  const file = await open(path, 'w');
  await file.truncate(2 ** 30);
  await file.close();
  await chmod(path, 0o600);
  expect((await stat(path)).size).toBe(2 ** 30);
  expect(actualSize(path)).toBeLessThan(2 ** 20);
});
