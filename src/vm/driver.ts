import type { Claim } from '../budget/admission.ts';
import type { InstanceName } from '../core/names.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Channel } from '../guest/channel.ts';
import type { Deadline } from '../host/deadline.ts';
import type { Spec } from '../template/spec.ts';
import type { Instance } from './instance.ts';
import type { State } from './state.ts';

export interface CreateOptions {
  /** Debian mirror for an image that must be built first. */
  readonly mirror?: string;
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
  channel(instance: Instance): Channel;
  /** What `create` and `start` would do, line by line, for --dry-run. */
  planned(spec: Spec): Promise<string[]>;
}
