import type { Claim } from '../budget/admission.ts';
import type { InstanceName } from '../core/names.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Channel, Streams } from '../guest/channel.ts';
import type { Deadline } from '../host/deadline.ts';
import type { Spec } from '../template/spec.ts';
import type { Instance } from './instance.ts';
import type { SnapshotDriver } from './snapshot-driver.ts';
import type { State } from './state.ts';
import type { WarmKey } from './warm-key.ts';
import type { WarmManifest } from './warm-store.ts';

export interface CreateOptions {
  /** Debian mirror for an image that must be built first. */
  readonly mirror?: string;
  /** Go on although an image that must be pulled first might not fit. */
  readonly overcommit?: boolean;
}

export interface StopOptions {
  /** A power cut instead of a shutdown. */
  readonly force: boolean;
  readonly deadline: Deadline;
}

/** What runs instances. Every call that changes one is made under the instance's lock. */
export interface Driver {
  /** Looks whether this host can take it at all (path lengths, programs). @throws Failure */
  check(spec: Spec): Promise<void>;
  /** The most a new instance of this spec, and what must be made for it first, can take on the host. */
  claims(spec: Spec): Promise<Claim[]>;
  /** Makes the instance's files in its folder, which is there with spec and state; `remove` undoes it. */
  create(spec: Spec, state: State, options: CreateOptions): Promise<Instance>;
  /** Starts it and waits until the guest is ready: pool ONLINE and command channel answering. */
  start(instance: Instance, undo: UndoStack, deadline: Deadline): Promise<Instance>;
  stop(instance: Instance, options: StopOptions): Promise<void>;
  /** Ends the machine if it runs, and removes all its files, however damaged. */
  remove(name: InstanceName): Promise<void>;
  /** The way into a running guest; `streams` instead of this process's own, where the driver can. */
  channel(instance: Instance, streams?: Streams): Channel;
  /** Keeps other programs that know the instance from deleting it too, or allows it again; absent where there are none. */
  readonly protect?: (instance: Instance, on: boolean) => Promise<void>;
  readonly snapshots: SnapshotDriver;
  /** What `create` and `start` would do, line by line, for --dry-run. */
  planned(spec: Spec): Promise<string[]>;
  /** Makes an instance from a warm state; absent where the driver can't. */
  readonly fork?: (
    spec: Spec,
    state: State,
    warm: WarmManifest,
    undo: UndoStack,
    deadline: Deadline,
  ) => Promise<Instance>;
  /** Saves a running instance as a warm state, which ends the machine. */
  readonly saveWarm?: (instance: Instance, warm: WarmKey) => Promise<void>;
}
