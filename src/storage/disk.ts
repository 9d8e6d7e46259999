import { stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, resolve } from 'node:path';
import { messageOf } from '../core/errors.ts';
import { exists } from '../host/files.ts';
import { heldBySnapshots, readDisk, type DiskKind } from '../qemu/qcow2.ts';

/** One disk file as it lies on the host; a sample, as a running machine goes on writing. All sizes in bytes. */
export interface DiskUsage {
  readonly path: string;
  /** Absent where it could not be told. */
  readonly kind?: DiskKind;
  /** What the guest sees. */
  readonly virtual: number;
  /** Blocks on the host. */
  readonly actual: number;
  readonly snapshots: number;
  /** Of `actual`, what only snapshots hold. */
  readonly heldBySnapshots: number;
  /** Absolute. */
  readonly backing?: string;
  /** Why there is more to it than the figures say, or why there are none. */
  readonly problem?: string;
}

/** Looks at a disk; never fails because of what it finds. */
export async function lookAtDisk(path: string): Promise<DiskUsage> {
  const nothing = { path, virtual: 0, actual: 0, snapshots: 0, heldBySnapshots: 0 };
  let size: { virtual: number; actual: number };
  try {
    const found = await stat(path);
    size = { virtual: found.size, actual: found.blocks * 512 };
  } catch (error) {
    return { ...nothing, problem: `${basename(path)} can't be looked at: ${messageOf(error)}` };
  }
  try {
    const content = await readDisk(path);
    if (content.kind !== 'qcow2') return { ...nothing, ...size, kind: content.kind };
    const { virtual, backing, snapshots, corrupt } = content.qcow2;
    const whole =
      backing === undefined ? undefined : isAbsolute(backing) ? backing : resolve(dirname(path), backing);
    const problem = corrupt
      ? 'QEMU has marked it as corrupt'
      : whole !== undefined && !(await exists(whole))
        ? `its backing file ${whole} is missing`
        : undefined;
    return {
      path,
      kind: 'qcow2',
      virtual,
      actual: size.actual,
      snapshots: snapshots.length,
      heldBySnapshots: snapshots.length === 0 ? 0 : Math.min(size.actual, await heldBySnapshots(path)),
      ...(whole === undefined ? {} : { backing: whole }),
      ...(problem === undefined ? {} : { problem }),
    };
  } catch (error) {
    return { ...nothing, actual: size.actual, problem: messageOf(error) };
  }
}
