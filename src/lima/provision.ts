import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import { findPackageRoot } from '../host/package-root.ts';
import type { Spec } from '../template/spec.ts';
import { sharesAmong } from '../template/storage.ts';

/** A script of `provision/`, with its text. */
export interface ProvisionScript {
  readonly file: string;
  readonly text: string;
}

/** What of a spec decides which scripts it needs. */
type Provisioned = Pick<Spec, 'image' | 'pool' | 'buildTools' | 'storage'>;

/** Files of `provision/` that a machine of this spec needs, in the order in which they have to run. */
export function provisionFiles(spec: Provisioned): string[] {
  return [
    ...(spec.image.flavour === 'zfs' ? ['zfs-packages.sh'] : []),
    ...(spec.pool ? ['pool.sh'] : []),
    // After the pool: a mount point may lie in one of its file systems.
    ...(sharesAmong(spec.storage).length > 0 ? ['mounts.sh'] : []),
    ...(spec.buildTools ? ['build-tools.sh'] : []),
  ];
}

/** Reads the scripts of a spec. @throws Failure `files` if the installation is damaged. */
export async function readProvisionScripts(
  spec: Provisioned,
  folder: string = join(findPackageRoot(), 'provision'),
): Promise<ProvisionScript[]> {
  return Promise.all(
    provisionFiles(spec).map(async (file) => {
      try {
        return { file, text: await readFile(join(folder, file), 'utf8') };
      } catch (error) {
        throw new Failure('files', `${join(folder, file)} can't be read: ${messageOf(error)}`, {
          hint: 'install zfsdev again',
          cause: error,
        });
      }
    }),
  );
}
