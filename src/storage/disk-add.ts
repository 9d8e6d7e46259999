import { isDeepStrictEqual } from 'node:util';
import { exactBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import { withUndo, type UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { sweepUnfinished } from '../host/whole-file.ts';
import type { DiskDevice } from '../template/storage.ts';
import { withRoom } from '../vm/disk-admission.ts';
import type { Instance } from '../vm/instance.ts';
import { checkStorage } from '../vm/storage-check.ts';
import { storageClaims } from '../vm/storage-claims.ts';
import { createDisk } from '../vm/storage-files.ts';
import { placeOf } from '../vm/storage-places.ts';
import { requireUnused } from '../vm/storage-rights.ts';
import { clashOf, usesOfStorage } from '../vm/storage-users.ts';
import { withDisks, type DiskMachine } from './disk-machine.ts';
import { isPluggedIn, plugIn, refuseFixed } from './disk-plug.ts';
import { attached, detached, forgetDisk, recordDisk } from './disk-record.ts';

export interface AddDisk {
  /** As it was typed, for hints. */
  readonly command: string;
  /** Go on although what it may take doesn't fit beside the worst case of everything. */
  readonly overcommit: boolean;
  /** What the disk is to hold, instead of being empty. */
  readonly content?: DiskContent;
}

/** What a new disk is to hold. */
export interface DiskContent {
  /** Fills the new file, which is empty. */
  readonly fill: (file: string) => Promise<void>;
  /** Whether a file holds it already, which somebody made who was cut off then. */
  readonly isIn: (file: string) => Promise<boolean>;
}

export interface AddedDisk {
  readonly disk: DiskDevice;
  readonly path: string;
  /** False for a file that was there already. */
  readonly made: boolean;
  /** The machine runs, and has it now; else it has it from its next start on. */
  readonly running: boolean;
}

/**
 * Gives a machine one more disk, and plugs it in if the machine runs. Cut off at any step, the same command completes it: it is
 * written down as unplugged before its file is made, and as plugged in once QEMU has it.
 * @throws Failure `already-exists`, `wrong-state` with both ways out where a running machine can't be given it, `no-space`,
 *   `files`, `not-found`, `process`, `interrupted`; nothing of it stays then, unless QEMU may have it
 */
export function addDisk(
  ctx: Context,
  name: InstanceName,
  disk: DiskDevice,
  wanted: AddDisk,
): Promise<AddedDisk> {
  return withDisks(ctx, name, async (machine) => {
    const isLeftover = await refuseKnown(ctx, machine, disk);
    if (machine.running) refuseFixed(name, disk, wanted);
    const { missing, notices } = await checkStorage(ctx, { name, storage: [disk] });
    refuseOwnFile(ctx, machine, disk);
    const [place] = missing;
    if (!place && wanted.content) await requireContent(ctx, machine, disk, wanted.content, isLeftover);
    for (const text of notices) ctx.emit({ type: 'notice', level: 'warning', text });
    return withUndo(async (undo) => {
      const instance = await reserve(ctx, machine, disk, { isLeftover, overcommit: wanted.overcommit });
      if (!isLeftover)
        undo.add('what was written down', async () => void (await forgetDisk(ctx, instance, disk.name)));
      // One that was cut off once the disk had its name may have left the other name.
      if (!place) await sweepUnfinished(ctx, [placeOf(ctx, name, disk)]);
      else {
        await step(ctx.emit, 'disk', `Creating the disk "${disk.name}" of ${name}`, () =>
          createDisk(ctx, place, undo, wanted.content?.fill),
        );
      }
      if (machine.running) await plugInNew(ctx, { ...machine, instance }, disk, wanted.command, undo);
      else await recordDisk(ctx, instance, attached(disk));
      return { disk, path: placeOf(ctx, name, disk), made: place !== undefined, running: machine.running };
    });
  });
}

/**
 * From the moment that QEMU has it nothing is undone: its file must not go from under a guest. That is so, too, where QEMU's answer was
 * lost, or it can't be asked; what is there then is what a killed add leaves.
 */
async function plugInNew(
  ctx: Context,
  machine: DiskMachine,
  disk: DiskDevice,
  command: string,
  undo: UndoStack,
): Promise<void> {
  try {
    await plugIn(ctx, machine, detached(disk), { command, plugged: () => undo.disarm() });
  } catch (error) {
    // Asked to its end, even in answer to an interrupt.
    const calm: Context = { ...ctx, signal: new AbortController().signal };
    if (await isPluggedIn(calm, machine, disk).catch(() => true)) undo.disarm();
    throw error;
  }
}

/**
 * True for a disk that an add which was cut off has left unplugged.
 * @throws Failure `already-exists`
 */
async function refuseKnown(ctx: Context, machine: DiskMachine, disk: DiskDevice): Promise<boolean> {
  const { name, instance, running } = machine;
  const known = (instance.spec.storage ?? []).find((each) => each.name === disk.name);
  if (known === undefined) return false;
  if (known.type !== 'virtfs' && sameDisk(known, disk)) {
    const isThere = running ? await isPluggedIn(ctx, machine, known) : known.detached !== true;
    if (!isThere || known.detached === true) return true;
  }
  const what = known.type === 'virtfs' ? 'a share' : `a disk`;
  const attach = known.type !== 'virtfs' && known.detached === true;
  throw new Failure('already-exists', `"${name}" has ${what} ${JSON.stringify(disk.name)} already`, {
    hint: attach
      ? `it is not plugged in: zfsdev disk attach ${name} ${disk.name}`
      : `zfsdev disk list ${name} shows all; take another name, or zfsdev disk remove ${name} ${disk.name}`,
    data: { name, disk: disk.name },
  });
}

/** The same but for whether it is plugged in, and where. */
function sameDisk(a: DiskDevice, b: DiskDevice): boolean {
  const bare = (disk: DiskDevice): object => ({ ...disk, detached: undefined, port: undefined });
  return isDeepStrictEqual(bare(a), bare(b));
}

/** @throws Failure `already-exists` for a file that another disk of this machine has */
function refuseOwnFile(ctx: Context, { name, instance }: DiskMachine, disk: DiskDevice): void {
  const storage = (instance.spec.storage ?? []).filter((each) => each.name !== disk.name);
  for (const use of usesOfStorage(ctx, { name, storage: [disk] })) {
    const clash = clashOf(use, usesOfStorage(ctx, { name, storage }));
    if (!clash) continue;
    throw new Failure('already-exists', `${use.path} is in use as ${clash.what}`, {
      hint: 'give the disk a file of its own, or leave --file out',
      data: { path: use.path },
    });
  }
}

/**
 * @param isLeftover the same command was cut off, and has perhaps made the file, which is whole then
 * @throws Failure `already-exists` for a file that holds anything else
 */
async function requireContent(
  ctx: Context,
  { name }: DiskMachine,
  disk: DiskDevice,
  content: DiskContent,
  isLeftover: boolean,
): Promise<void> {
  const path = placeOf(ctx, name, disk);
  if (isLeftover && (await content.isIn(path))) return;
  throw new Failure('already-exists', `there is a file ${path} already, which would be overwritten`, {
    hint: isLeftover
      ? `zfsdev disk attach ${name} ${disk.name} takes it as it is, zfsdev disk remove ${name} ${disk.name} deletes it`
      : `zfsdev disk add takes a file as it is: --file ${path}`,
    data: { path },
  });
}

/** From when it is written down its worst case counts, whoever asks, and its file is nobody else's. */
async function reserve(
  ctx: Context,
  { name, instance }: DiskMachine,
  disk: DiskDevice,
  { isLeftover, overcommit }: { readonly isLeftover: boolean; readonly overcommit: boolean },
): Promise<Instance> {
  const claims = isLeftover ? [] : await storageClaims(ctx, { name, storage: [disk] });
  const size = disk.size === undefined ? '' : ` of ${exactBytes(disk.size)}`;
  const what = `the disk "${disk.name}"${size}`;
  return step(ctx.emit, 'budget', 'Checking the disk space of the worst case', () =>
    withRoom(ctx, { what, claims }, overcommit, async () => {
      // Looked at again: of two machines that are given one file at once, the second sees the first.
      await requireUnused(ctx, { name, storage: [disk] });
      return recordDisk(ctx, instance, detached(disk));
    }),
  );
}
