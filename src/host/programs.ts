import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';

/** The absolute path of a program on PATH, as this user may run it; undefined if there is none. */
export async function findOnPath(
  env: Readonly<NodeJS.ProcessEnv>,
  program: string,
): Promise<string | undefined> {
  for (const folder of (env['PATH'] ?? '').split(delimiter)) {
    if (folder === '') continue;
    const path = resolve(join(folder, program));
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    // What can't be looked at can't be run either; the search goes on as a shell's does.
    return false;
  }
}
