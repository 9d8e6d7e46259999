import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Failure, hasCode } from '../core/errors.ts';

/**
 * The folder that holds zfsdev's own package.json, and beside it `templates/` and `provision/`: the repository's root
 * in development, the installed package otherwise. Found by walking up, since the bundle lies at another depth than
 * the sources do.
 * @throws Failure `files` if the installation is damaged.
 */
export function findPackageRoot(from: string = import.meta.url): string {
  const start = dirname(fileURLToPath(from));
  for (let folder = start; ; folder = dirname(folder)) {
    if (packageName(folder) === 'zfsdev') return folder;
    if (folder === dirname(folder)) break;
  }
  throw new Failure('files', `no package.json of zfsdev is found in ${start} or above it`, {
    hint: 'install zfsdev again',
  });
}

function packageName(folder: string): unknown {
  try {
    const found: unknown = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    return typeof found === 'object' && found !== null && 'name' in found ? found.name : undefined;
  } catch (error) {
    // A foreign package.json that can't be read or parsed on the way up isn't ours.
    if (error instanceof SyntaxError || hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EISDIR'))
      return undefined;
    throw error;
  }
}
