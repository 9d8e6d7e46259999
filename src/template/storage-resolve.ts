import { dirname, resolve } from 'node:path';
import { absoluteLocation } from './image.ts';
import type { DiskDevice, StorageDevice } from './storage.ts';

/**
 * Makes the paths of a template's storage absolute: `~/` is the user's home, any other one is relative to the template's
 * folder, wherever the command is run.
 * @param file the template's
 */
export function resolveStorage(storage: readonly StorageDevice[], file: string): StorageDevice[] {
  // Without `..`, which would mean something else behind a link.
  const absolute = (path: string): string => resolve(absoluteLocation(path, dirname(file)));
  return storage.map((device) =>
    device.type === 'virtfs' ? { ...device, path: absolute(device.path) } : resolveDisk(device, absolute),
  );
}

function resolveDisk(disk: DiskDevice, absolute: (path: string) => string): DiskDevice {
  const { file, backingFile, format } = disk;
  const passphraseFile = format?.passphraseFile;
  return {
    ...disk,
    ...(file === undefined ? {} : { file: absolute(file) }),
    ...(backingFile === undefined ? {} : { backingFile: absolute(backingFile) }),
    ...(passphraseFile === undefined
      ? {}
      : { format: { ...format, passphraseFile: absolute(passphraseFile) } }),
  };
}
