import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseName } from '../../src/core/names.ts';
import type { Paths, InstancePaths } from '../../src/host/paths.ts';
import { resolveSpec } from '../../src/template/resolve.ts';
import { newState, type State } from '../../src/vm/state.ts';

/** Writes what a stopped instance is known by, all but its disk. */
export async function stoppedInstance(
  { instance }: Paths,
  name: string,
  state: Partial<State> = {},
): Promise<InstancePaths> {
  const paths = instance(parseName(name));
  await mkdir(paths.folder, { recursive: true, mode: 0o700 });
  await writeFile(paths.spec, JSON.stringify(await resolveSpec('zfs-test', { name })));
  await writeFile(paths.state, JSON.stringify({ ...newState('qemu'), phase: 'started', ...state }));
  return paths;
}

/** Makes a folder as Lima has one for an instance; gives its path. */
export async function limaInstance(home: string, name: string): Promise<string> {
  const folder = join(home, name);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'lima.yaml'), '');
  return folder;
}
