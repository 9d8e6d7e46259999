/** The parts of QEMU's QMP schema that zfsdev uses (names as in QEMU's qapi/*.json of 7.2). */

export type RunState =
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';

export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: string;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  /** Set once the job failed: the only place where that shows. */
  readonly error?: string;
}

export interface BlockJob {
  readonly device: string;
  readonly type: string;
  /** Bytes. */
  readonly len: number;
  readonly offset: number;
  readonly status: string;
}

/** One node of QEMU's block layer, as far as snapshots and sizes go. */
export interface BlockNode {
  readonly 'node-name'?: string;
  readonly image: {
    /** Bytes. */
    readonly 'virtual-size'?: number;
    readonly snapshots?: readonly {
      readonly id: string;
      readonly name: string;
      /** Bytes. */
      readonly 'vm-state-size': number;
    }[];
  };
}

type SnapshotJobArguments = {
  readonly 'job-id': string;
  readonly tag: string;
  /** Names of nodes. */
  readonly devices: readonly string[];
};

export interface MigrationInfo {
  readonly status?: string;
  readonly 'error-desc'?: string;
  /** Why the machine's memory can't be saved now, in QEMU's words. */
  readonly 'blocked-reasons'?: readonly string[];
  readonly ram?: { readonly total: number; readonly transferred: number; readonly remaining: number };
}

/** One property of one of QEMU's objects; a child's type is `child<...>`. */
export interface ObjectProperty {
  readonly name: string;
  readonly type: string;
}

/** Properties of a node, a device or an object, as `-blockdev`, `-device` and `-object` take them too. */
export type Definition = Readonly<Record<string, unknown>>;

type Nothing = Readonly<Record<string, never>>;

/** Commands by name: what each takes and gives. */
export interface Commands {
  'query-status': {
    arguments: undefined;
    returns: { readonly status: RunState; readonly running: boolean };
  };
  system_powerdown: { arguments: undefined; returns: Nothing };
  system_reset: { arguments: undefined; returns: Nothing };
  quit: { arguments: undefined; returns: Nothing };
  stop: { arguments: undefined; returns: Nothing };
  cont: { arguments: undefined; returns: Nothing };
  'query-jobs': { arguments: undefined; returns: readonly JobInfo[] };
  'job-dismiss': { arguments: { readonly id: string }; returns: Nothing };
  'job-cancel': { arguments: { readonly id: string }; returns: Nothing };
  'snapshot-save': { arguments: SnapshotJobArguments & { readonly vmstate: string }; returns: Nothing };
  'snapshot-load': { arguments: SnapshotJobArguments & { readonly vmstate: string }; returns: Nothing };
  'snapshot-delete': { arguments: SnapshotJobArguments; returns: Nothing };
  transaction: {
    arguments: {
      readonly actions: readonly {
        readonly type: 'blockdev-snapshot-internal-sync';
        readonly data: { readonly device: string; readonly name: string };
      }[];
    };
    returns: Nothing;
  };
  'query-named-block-nodes': {
    arguments: { readonly flat: true };
    returns: readonly BlockNode[];
  };
  'blockdev-add': { arguments: Definition; returns: Nothing };
  'blockdev-del': { arguments: { readonly 'node-name': string }; returns: Nothing };
  /** Takes any size, a smaller one too. */
  block_resize: { arguments: { readonly 'node-name': string; readonly size: number }; returns: Nothing };
  'object-add': { arguments: Definition; returns: Nothing };
  'object-del': { arguments: { readonly id: string }; returns: Nothing };
  device_add: { arguments: Definition; returns: Nothing };
  /** Asks the guest to let go: `DEVICE_DELETED` tells when it has. */
  device_del: { arguments: { readonly id: string }; returns: Nothing };
  'qom-list': { arguments: { readonly path: string }; returns: readonly ObjectProperty[] };
  'qom-get': {
    arguments: { readonly path: string; readonly property: string };
    returns: string | number | boolean;
  };
  'query-block-jobs': { arguments: undefined; returns: readonly BlockJob[] };
  'migrate-set-capabilities': {
    arguments: {
      readonly capabilities: readonly { readonly capability: string; readonly state: boolean }[];
    };
    returns: Nothing;
  };
  'migrate-incoming': { arguments: { readonly uri: string }; returns: Nothing };
  migrate: { arguments: { readonly uri: string }; returns: Nothing };
  'query-migrate': { arguments: undefined; returns: MigrationInfo };
}

/** Something QEMU tells on its own: `SHUTDOWN`, `BLOCK_IO_ERROR`, `STOP` ... */
export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}
