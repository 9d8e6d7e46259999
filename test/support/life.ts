import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { inGuest } from './in-guest.ts';
import type { Shell } from './zfsdev.ts';

/** What the tests of one file share, that follow a machine through its life. */
export interface Life {
  /** A path in a folder of the host that is removed with the machine. */
  readonly onHost: (name: string) => string;
  /** Runs a command in the guest, which has to go well and say nothing on standard error; gives its output. */
  readonly guest: (...argv: readonly string[]) => Promise<string>;
}

/** Sets up a file's tests for one machine, which is deleted when they are through, whatever they left. */
export function lifeOf(zfsdev: Shell, name: string): Life {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'zfsdev-files-'));
  });
  afterAll(async () => {
    await zfsdev('delete', '--force', name);
    await rm(folder, { recursive: true, force: true });
  });
  return {
    onHost: (file) => join(folder, file),
    guest: (...argv) => inGuest(zfsdev, name, ...argv),
  };
}
