/** Sizes in bytes, times in seconds since 1970, as ZFS tells them. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly fullName: string;
  /** ZFS's own number for it, which no other dataset ever has. */
  readonly guid: string;
  /** Bytes that its volume had when it was taken. */
  readonly size: number;
  readonly used: number;
  readonly referenced: number;
  readonly created: number;
  readonly holds: number;
  /** Full names of the datasets that were cloned from it. */
  readonly clones: readonly string[];
  /** It goes when nothing stands on it any more. */
  readonly deferred: boolean;
  /** The template that it is, if it is one. */
  readonly template?: { readonly name: string; readonly id: string };
}

/** A zvol of the pool, whatever it is for. */
export interface Zvol {
  readonly dataset: string;
  readonly id: string;
  readonly size: number;
  readonly used: number;
  readonly referenced: number;
  readonly reserved: number;
  readonly blockSize: number;
  readonly compressionRatio: number;
  readonly created: number;
  /** The full name of the snapshot it was cloned from; empty if it was not. */
  readonly origin: string;
  /** Oldest first. */
  readonly snapshots: readonly Snapshot[];
}

export interface Volume extends Zvol {
  readonly name: string;
  readonly path: string;
  /** The name of the template it was cloned from; empty if none. */
  readonly template: string;
}

export interface Template {
  readonly id: string;
  readonly name: string;
  readonly snapshot: Snapshot;
  /** The volume it was made of; empty for an import. */
  readonly sourceVolume: string;
  /** Bytes of its snapshot, whatever its volume has grown to since. */
  readonly size: number;
  readonly blockSize: number;
  /** Names of the volumes that were cloned from it. */
  readonly clones: readonly string[];
}

export interface Pool {
  readonly name: string;
  readonly size: number;
  readonly free: number;
  readonly allocated: number;
  readonly provisioned: number;
  readonly compressionRatio: number;
  readonly health: string;
  readonly fragmentation: number;
}

/** All that lies in the pool, as one question to ZFS found it. */
export interface Inventory {
  /** By name. */
  readonly volumes: readonly Volume[];
  /** By name. */
  readonly templates: readonly Template[];
  /** Zvols that imports have not finished. */
  readonly unfinished: readonly Zvol[];
}
