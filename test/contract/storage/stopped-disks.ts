import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import type { DiskDevice } from '../../../src/template/storage.ts';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done } from '../../support/outcome.ts';
import { shell, type Result, type Shell } from '../../support/zfsdev.ts';

export const MiB = 2 ** 20;

export let ctx: TestContext;
export let zfsdev: Shell;
export let folder: string;
export let root: string;

export const qemu = (program: 'qemu-img' | 'qemu-io', ...args: string[]): string =>
  callIn(ctx.folder, program, ...args);

beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B', HOME: ctx.folder });
  const paths = await stoppedInstance(ctx.paths, 'a', { diskBound: 64 * MiB });
  [folder, root] = [paths.folder, paths.disk];
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', root, '64M');
});
afterEach(() => ctx.remove());

export const disk = (verb: string, ...args: string[]): Promise<Result> => zfsdev('disk', verb, 'a', ...args);
export const own = (file: string): string => join(folder, 'disks', file);
export const at = (file: string): string => join(ctx.folder, file);

export const spec = (): { disk: number; storage?: DiskDevice[] } =>
  JSON.parse(readFileSync(join(folder, 'spec.json'), 'utf8')) as { disk: number; storage?: DiskDevice[] };

interface Listed {
  readonly name: string;
  readonly virtualBytes?: number;
  readonly actualBytes: number;
  readonly attached: boolean;
  readonly plugged: boolean | null;
  readonly path: string;
  readonly problem?: string;
}

export async function listed(): Promise<Listed[]> {
  const { stdout } = await done(disk('list', '--json'));
  return (JSON.parse(stdout.split('\n').at(-1) ?? '') as { disks: Listed[] }).disks;
}

export const names = async (): Promise<string[]> => (await listed()).map(({ name }) => name);
export const filesIn = async (path: string): Promise<string[]> =>
  (await readdir(path).catch(() => [])).sort();

/** Writes a pattern that is told by its number; beyond the first megabyte. */
export const write = (path: string, format: string, pattern: number): string =>
  qemu('qemu-io', '-f', format, '-c', `write -P ${pattern} 1M 1M`, path);
/** qemu-io says so where the pattern isn't there, and exits 0. */
export const holds = (path: string, format: string, pattern: number): boolean =>
  !qemu('qemu-io', '-f', format, '-c', `read -P ${pattern} 1M 1M`, path).includes('failed');
