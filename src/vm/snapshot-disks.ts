import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { exists } from '../host/files.ts';
import { printable } from '../host/run.ts';
import { diskNode } from '../qemu/argv.ts';
import type { Qcow2 } from '../qemu/qcow2-header.ts';
import { readDisk } from '../qemu/qcow2.ts';
import type { Instance } from './instance.ts';
import { machineFiles, type StorageFile } from './machine-files.ts';
import { nodeOf } from './storage-places.ts';

/** A disk that can hold snapshots. */
export interface SnapshotDisk {
  /** As the user says it with --disk. */
  readonly name: string;
  readonly path: string;
  /** Its node in a running QEMU of the built-in driver. */
  readonly node: string;
  /** A file with the passphrase of an encrypted one, which qemu-img needs to open it. */
  readonly passphraseFile?: string;
}

/** The disks of a machine, sorted by whether they can hold snapshots. */
export interface DiskSet {
  readonly disks: readonly SnapshotDisk[];
  /** Names of what can't: disks that are no qcow2, only read or unplugged, and shares. They stay out of every snapshot. */
  readonly others: readonly string[];
}

/** The name of the disk with the root file system. */
export const rootDisk = 'root';

/**
 * All disks of a machine; whoever gives machines more disks adds them here.
 * @throws Failure `files` for one that is gone or can't be read
 */
export async function disksOf(ctx: Context, instance: Instance): Promise<DiskSet> {
  const { disks, folder, storage } = await machineFiles(ctx, instance.name, instance);
  const [path] = disks;
  if (path === undefined) throw new Failure('files', `there is no disk of "${instance.name}" in ${folder}`);
  const root = { name: rootDisk, path, node: diskNode };
  const isQcow2 = (await readTable(path)) !== undefined;
  const further = storage.filter(
    ({ disk }) => disk.type === 'qcow2' && !disk.readonly && disk.detached !== true,
  );
  await Promise.all(further.map(requirePresent));
  const held = new Set(further.map(({ disk }) => disk.name));
  return {
    disks: [...(isQcow2 ? [root] : []), ...further.map(snapshotDisk)],
    others: [
      ...(isQcow2 ? [] : [rootDisk]),
      ...(instance.spec.storage ?? []).map(({ name }) => name).filter((name) => !held.has(name)),
    ],
  };
}

function snapshotDisk({ disk, path }: StorageFile): SnapshotDisk {
  const passphraseFile = disk.format?.passphraseFile;
  return { name: disk.name, path, node: nodeOf(disk), ...(passphraseFile ? { passphraseFile } : {}) };
}

/** @throws Failure `files` for a disk that is gone, or is something else by now */
async function requirePresent({ disk, path }: StorageFile): Promise<void> {
  if (!exists(path)) {
    throw new Failure('files', `the disk "${disk.name}" is not there: ${path}`, {
      hint: 'put it back; a machine that never ran has its disks made when it starts',
    });
  }
  if ((await readTable(path)) !== undefined) return;
  throw new Failure('files', `the disk "${disk.name}" is no qcow2 any more: ${path}`);
}

/**
 * The disks that were asked for by name, all that can hold snapshots without.
 * @throws Failure `not-found`, `unsupported` for one that can't hold any
 */
export function chooseDisks(
  machine: string,
  { disks, others }: DiskSet,
  names: readonly string[],
): SnapshotDisk[] {
  const chosen = [...new Set(names)].map((name) => {
    const disk = disks.find((each) => each.name === name);
    if (disk) return disk;
    if (others.includes(name)) throw cannotHold(machine, name);
    const all = [...disks.map((each) => each.name), ...others];
    throw new Failure('not-found', `"${machine}" has no disk "${name}"`, {
      hint: `its disks: ${all.join(', ')}`,
    });
  });
  if (names.length > 0) return chosen;
  if (disks.length === 0) throw cannotHold(machine, others[0] ?? rootDisk);
  return [...disks];
}

function cannotHold(machine: string, name: string): Failure {
  return new Failure(
    'unsupported',
    `"${name}" of "${machine}" can't hold snapshots: only a qcow2 that is plugged in and written to does`,
    {
      hint:
        name === rootDisk
          ? 'machines of the driver qemu have a qcow2; so have those that Lima runs with QEMU, from a qcow2 image'
          : 'type: qcow2 in the template makes it a disk that can (docs/storage.md)',
    },
  );
}

/** What a disk tells of itself; undefined if it is no qcow2. A running machine may be writing its table just now. */
export async function readTable(path: string): Promise<Qcow2 | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const content = readDisk(path);
      return content.kind === 'qcow2' ? content.qcow2 : undefined;
    } catch (error) {
      if (attempt === 3) throw withAdvice(path, error);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }
}

/** @throws Failure `files` unless all of them can be trusted and written to. */
export async function requireSound(disks: readonly SnapshotDisk[]): Promise<void> {
  for (const { path } of disks) {
    const table = await readTable(path);
    if (table?.corrupt) throw withAdvice(path, new Failure('files', `QEMU has marked ${path} as corrupt`));
    try {
      await access(path, constants.W_OK);
    } catch (error) {
      throw new Failure('files', `${path} can't be written to: ${messageOf(error)}`, {
        hint: 'make the file, its folder and its file system writable, and try again',
        cause: error,
      });
    }
  }
}

/** What to do with a disk that is damaged. */
export function withAdvice(path: string, error: unknown): unknown {
  if (!(error instanceof Failure)) return error;
  const words = `${error.message} ${error.detail ?? ''}`;
  if (!/corrupt|damaged|makes no sense|ends too early|Input\/output error/i.test(words)) return error;
  return new Failure('files', error.message, {
    ...(error.detail === undefined ? {} : { detail: error.detail }),
    hint: `stop the machine, keep a copy of the file, then
${printable(['qemu-img', 'check', path])} tells what is wrong with it
${printable(['qemu-img', 'check', '-r', 'all', path])} mends what can be mended
zfsdev snapshot export saves a snapshot that can still be read`,
    cause: error,
  });
}

/** Whether QEMU or qemu-img ended for want of room on the host's disk. */
export function isFull(error: unknown): error is Failure {
  if (!(error instanceof Failure)) return false;
  return /No space left on device|-28\b|Error while writing VM state/.test(
    `${error.message} ${error.detail ?? ''}`,
  );
}

/** The host's disk was full in the middle of it. Memory that was written by then stays as long as the machine runs. */
export function noRoom(cause: Failure, memory = false): Failure {
  return new Failure('no-space', "the host's disk was full before the snapshot was whole; there is none", {
    ...(cause.detail === undefined ? {} : { detail: cause.detail }),
    hint: `zfsdev usage tells what takes the room; zfsdev snapshot delete, zfsdev warm prune and zfsdev image prune give it back${
      memory ? '\nso does stopping this machine, as what was written of its memory goes then' : ''
    }`,
    cause,
  });
}
