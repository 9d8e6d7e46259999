import type { UndoStack } from '../core/undo.ts';
import type { Deadline } from '../host/deadline.ts';
import type { Instance } from './instance.ts';
import type { SnapshotDisk } from './snapshot-disks.ts';
import type { Snapshot } from './snapshot-list.ts';
import type { Begun, SavedMachine } from './snapshot-record.ts';

/** A machine whose lock is held, and the disks of it that it's about. */
export interface SnapshotMachine {
  readonly instance: Instance;
  readonly running: boolean;
  readonly disks: readonly SnapshotDisk[];
}

/** How a driver takes snapshots and goes back to them. None of it is called without the instance's lock. */
export interface SnapshotDriver {
  /** Looks whether it takes such a snapshot at all, before anything is changed. @throws Failure `unsupported` */
  checkTake(machine: SnapshotMachine, name: string, memory: boolean): Promise<void>;
  /** Takes one of a running machine or of a stopped one, on all disks or on none; gives what its memory needs to go on. */
  take(machine: SnapshotMachine, tag: string, memory: boolean): Promise<SavedMachine | undefined>;
  /**
   * Has an end come to what a zfsdev that was killed left begun: nothing of it goes on in the background afterwards, and of one that
   * was being loaded the disks are of one moment again. Drivers whose sets have one disk have nothing to do.
   * @throws Failure `wrong-state` for a machine that must not go on as it is
   */
  recover?(machine: SnapshotMachine, begun: Begun): Promise<void>;
  /** Takes away whatever `take` has left, whether the machine still runs or not. */
  forget(machine: SnapshotMachine, tag: string): Promise<void>;
  /** Deletes one, the machine running or not. */
  drop(machine: SnapshotMachine, snapshot: Snapshot): Promise<void>;
  /** Takes the disks of a stopped machine back. */
  revert(machine: SnapshotMachine, snapshot: Snapshot): Promise<void>;
  /** Looks whether memory can be gone back to, before anything is changed. @throws Failure `unsupported`, `wrong-state` */
  checkRestore(machine: SnapshotMachine, snapshot: Snapshot): Promise<void>;
  /** Takes disks and memory back, the machine running or not; it runs afterwards. */
  restore(
    machine: SnapshotMachine,
    snapshot: Snapshot,
    undo: UndoStack,
    /** For it to be ready again; asked for once its memory is back, which takes as long as it takes. */
    deadline: () => Deadline,
  ): Promise<Instance>;
}
