import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import { findPackageRoot } from '../host/package-root.ts';
import type { Spec } from '../template/spec.ts';

/** A script of `provision/`, with its text. */
export interface ProvisionScript {
  readonly file: string;
  readonly text: string;
}

/** Files of `provision/` that a machine of this spec needs, in the order in which they have to run. */
export function provisionFiles(spec: Pick<Spec, 'image' | 'pool' | 'buildTools'>): string[] {
  return [
    ...(spec.image.flavour === 'zfs' ? ['zfs-packages.sh'] : []),
    ...(spec.pool ? ['pool.sh'] : []),
    ...(spec.buildTools ? ['build-tools.sh'] : []),
  ];
}

/** Reads the scripts of a spec. @throws Failure `files` if the installation is damaged. */
export async function readProvisionScripts(
  spec: Pick<Spec, 'image' | 'pool' | 'buildTools'>,
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
