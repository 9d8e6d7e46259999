import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { findPackageRoot } from '../../../src/host/package-root.ts';
import { isTemplatePath, listTemplates, loadTemplate } from '../../../src/template/load.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-templates-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function failureOf(nameOrPath: string): Promise<Failure> {
  const error: unknown = await loadTemplate(nameOrPath).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof Failure)) throw new Error('no failure was thrown');
  expect(error.reason).toBe('template');
  expect(error.exitCode).toBe(2);
  return error;
}

describe('the package root', () => {
  test('holds templates and provision', async () => {
    const entries = await readdir(findPackageRoot());
    expect(entries).toEqual(expect.arrayContaining(['package.json', 'templates', 'provision']));
  });

  test('is looked for upwards, and its absence is a failure', () => {
    const outside = new URL(`file://${folder}/dist/chunks/x.js`).href;
    expect(() => findPackageRoot(outside)).toThrow(Failure);
  });

  test('is the folder of the package.json named zfsdev, not of any other', async () => {
    await writeFile(join(folder, 'package.json'), '{"name": "other"}');
    expect(() => findPackageRoot(new URL(`file://${folder}/dist/x.js`).href)).toThrow(Failure);
    await writeFile(join(folder, 'package.json'), '{"name": "zfsdev"}');
    expect(findPackageRoot(new URL(`file://${folder}/dist/x.js`).href)).toBe(folder);
  });
});

test('our templates are listed by name', async () => {
  expect(await listTemplates()).toEqual(['combined', 'kernel-build', 'zfs-small', 'zfs-test']);
});

test.each([
  ['zfs-test', false],
  ['mine', false],
  ['mine.yaml', true],
  ['mine.yml', true],
  ['./mine', true],
  ['../lab/mine', true],
])('%s is a path: %s', (nameOrPath, isPath) => {
  expect(isTemplatePath(nameOrPath)).toBe(isPath);
});

test('an unknown name is answered with the nearest and the list', async () => {
  const failure = await failureOf('zfs-tset');
  expect(failure.message).toBe('there is no template "zfs-tset"');
  expect(failure.hint).toBe(
    'did you mean "zfs-test"? the templates are combined, kernel-build, zfs-small, zfs-test\n' +
      'a file of your own is given as a path: ./zfs-tset.yaml',
  );
  expect((await failureOf('qqqqqqqq')).hint).toMatch(/^the templates are combined/);
});

test("a user's file is read, and named in errors as it was given", async () => {
  const file = join(folder, 'mine.yaml');
  await writeFile(file, 'description: d\ncpus: 1\nmemory: 1GiB\ndisk: 4GiB\nworstCase: {base: 1GB}\n');
  expect(await loadTemplate(file)).toMatchObject({
    template: file,
    file,
    builtIn: false,
    values: { cpus: 1 },
  });
  await writeFile(file, 'cpus: [\n');
  expect((await failureOf(file)).message).toContain(`${file}:2:1: `);
});

test('a file that is not there, or no file', async () => {
  const missing = join(folder, 'missing.yaml');
  expect((await failureOf(missing)).message).toBe(
    `the template ${missing} can't be read: there is no such file`,
  );
  expect((await failureOf(folder)).message).toBe(`the template ${folder} can't be read: it is a folder`);
});
