import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, resolve } from 'node:path';
import { hasCode, messageOf } from '../core/errors.ts';
import { lockKey } from '../host/file-locks.ts';
import { specialKind } from '../host/files.ts';
import { leadsTo } from '../host/system-folders.ts';
import { filesBehind } from '../qemu/backing-name.ts';
import type { Qcow2 } from '../qemu/qcow2-header.ts';
import { heldBySnapshots } from '../qemu/qcow2-snapshots.ts';
import { readDisk, type DiskKind } from '../qemu/qcow2.ts';

/** One disk file as it lies on the host; a sample, as a running machine goes on writing. All sizes in bytes. */
export interface DiskUsage {
  readonly path: string;
  /** Which file it is, whatever names lead to it (`lockKey`); absent where it could not be told. */
  readonly file?: string;
  /** Absent where it could not be told. */
  readonly kind?: DiskKind;
  /** What the guest sees. */
  readonly virtual: number;
  /** Blocks on the host. */
  readonly actual: number;
  readonly snapshots: number;
  readonly encrypted?: true;
  /** Of `actual`, what only snapshots hold. */
  readonly heldBySnapshots: number;
  /** Absolute, links resolved; as it is written if it isn't a file (`nbd://...`). */
  readonly backing?: string;
  /** More files that it stands on, where its name for the backing file has the options of a whole chain (`json:{...}`). */
  readonly further?: readonly string[];
  /** Why there is more to it than the figures say, or why there are none. */
  readonly problem?: string;
}

/**
 * Looks at a disk; never fails because of what it finds.
 * @param isRaw it is known to be raw, whatever its guest has put where a qcow2 would have its header
 */
export async function lookAtDisk(path: string, isRaw = false): Promise<DiskUsage> {
  const nothing = { path, virtual: 0, actual: 0, snapshots: 0, heldBySnapshots: 0 };
  let size: { virtual: number; actual: number; file: string };
  try {
    const found = statSync(path);
    const special = specialKind(found);
    if (special) return { ...nothing, problem: `${basename(path)} is ${special}, not a file` };
    size = { virtual: found.size, actual: found.blocks * 512, file: lockKey(found) };
  } catch (error) {
    const why = hasCode(error, 'ENOENT')
      ? 'is missing'
      : hasCode(error, 'ELOOP')
        ? "is a link in a circle, and can't be looked at"
        : `can't be looked at: ${messageOf(error)}`;
    return { ...nothing, problem: `${basename(path)} ${why}` };
  }
  const { actual, file } = size;
  if (isRaw) return { ...nothing, ...size, kind: 'raw' };
  try {
    const content = readDisk(path);
    if (content.kind !== 'qcow2') return { ...nothing, ...size, kind: content.kind };
    const { virtual, snapshots, encrypted } = content.qcow2;
    const found = backingOf(path, content.qcow2);
    return {
      path,
      file,
      kind: 'qcow2',
      virtual,
      actual,
      snapshots: snapshots.length,
      ...(encrypted ? { encrypted } : {}),
      heldBySnapshots: snapshots.length === 0 ? 0 : Math.min(actual, await heldBySnapshots(path)),
      ...found,
    };
  } catch (error) {
    return { ...nothing, actual, file, problem: messageOf(error) };
  }
}

/** The backing file, and what is wrong with the disk although its tables can be read. */
function backingOf(
  path: string,
  { backing, corrupt, external }: Qcow2,
): Pick<DiskUsage, 'backing' | 'further' | 'problem'> {
  const problem = corrupt
    ? { problem: 'QEMU has marked it as corrupt' }
    : external
      ? { problem: 'its data lies in a file of its own, which is not counted' }
      : {};
  if (backing === undefined) return problem;
  const files = filesBehind(backing).map((name) => absolute(path, name));
  const [first, ...others] = files;
  if (first === undefined) return { backing, ...problem };
  const further = others.length === 0 ? {} : { further: others.map(leadsTo) };
  try {
    return { backing: realpathSync(first), ...further, ...problem };
  } catch (error) {
    const whole = resolve(first);
    const absent = hasCode(error, 'ENOENT', 'ENOTDIR');
    const why = absent ? 'is missing' : `can't be found: ${messageOf(error)}`;
    return { backing: whole, ...further, problem: `its backing file ${whole} ${why}`, ...problem };
  }
}

/** Joined as it is: a `..` behind a link is what the link's target has above it. */
function absolute(path: string, name: string): string {
  return isAbsolute(name) ? name : `${dirname(path)}/${name}`;
}
