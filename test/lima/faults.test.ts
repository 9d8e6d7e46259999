import { cp, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { shell } from '../support/zfsdev.ts';
import { expectNothingLeft, patience } from './support.ts';

const home = inject('limaHome');
const root = resolve(import.meta.dirname, '../..');
let copy: string;

/** This package with a provisioning script that fails. */
beforeAll(async () => {
  copy = await mkdtemp(join(tmpdir(), 'zfsdev-broken-'));
  for (const part of ['package.json', 'dist', 'provision', 'templates'])
    await cp(join(root, part), join(copy, part), { recursive: true });
  await symlink(join(root, 'node_modules'), join(copy, 'node_modules'));
  const script = '#!/bin/sh\necho "the moon is in the wrong phase" >&2\nexit 1\n';
  await writeFile(join(copy, 'provision/zfs-packages.sh'), script);
});

afterAll(() => rm(copy, { recursive: true, force: true }));

it('a script that fails has up fail with its words, and leaves nothing', async () => {
  const zfsdev = shell(home, {}, join(copy, 'dist/zfsdev.js'));
  const up = await zfsdev('up', 'zfs-test', '--name', 'broken', '--driver', 'lima', ...patience);
  expect(up.exitCode).toBe(1);
  expect(up.stderr).toContain('the provisioning of "broken" failed');
  expect(up.stderr).toContain('the moon is in the wrong phase');
  await expectNothingLeft(home);
});

it('a start that takes too long is ended, with its machine and all that was made', async () => {
  const up = await shell(home)('up', 'zfs-test', '--name', 'late', '--driver', 'lima', '--timeout', '15s');
  expect(up.exitCode).toBe(124);
  expect(up.stderr).toContain('"late" was not ready within 15 s');
  await expectNothingLeft(home);
});
