import { mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, inject } from 'vitest';
import { call } from './call.ts';
import { shell, type Shell } from './zfsdev.ts';

/** What of the run's common home a test file is given; nothing that it does there is seen by another file. */
const shared = ['images', 'warm', 'accelerator.json', 'programs.json'];

/**
 * A state home for one test file, so that several files can run at once: images and warm states of the run's common home
 * are there as hard links, since nothing writes to them. Machines that the file's tests leave behind are an error.
 */
export function ownHome(): Shell {
  const common = inject('vmHome');
  const home = mkdtempSync(`${common}-`);
  for (const name of shared) linkTree(join(common, name), home);
  mkdirSync(join(home, 'instances'), { mode: 0o700 });
  const zfsdev = shell(home);
  // Registered before the file's own hooks, so it runs after them.
  afterAll(async () => {
    const left = await removeAll(zfsdev);
    await rm(home, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`tests left machines behind: ${left.join(', ')}`);
  });
  return zfsdev;
}

/** Puts a tree into a folder, of the same file system, with its files as hard links. */
export function linkTree(source: string, folder: string): void {
  call('cp', '--archive', '--link', source, folder);
}

/** Puts a tree into a folder with files of its own, for tests that damage them. */
export function copyTree(source: string, folder: string): void {
  call('cp', '--archive', '--sparse=always', '--reflink=auto', source, folder);
}

/** Deletes all machines, whatever they are at; gives their names. */
export async function removeAll(zfsdev: Shell): Promise<string[]> {
  const { instances } = JSON.parse((await zfsdev('list', '--json')).stdout) as {
    instances: { name: string }[];
  };
  const names = instances.map(({ name }) => name);
  if (names.length > 0) await zfsdev('delete', '--force', ...names);
  return names;
}
