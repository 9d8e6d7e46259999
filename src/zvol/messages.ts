/** What zvold tells, as its contract has it (proto/zfsdev/zvol/v1/zvol.proto); sizes in bytes. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanos: number;
}

export interface Volume {
  readonly id: string;
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly referencedBytes: number;
  readonly reservedBytes: number;
  readonly volblocksize: number;
  readonly compressionRatio: number;
  readonly createdAt: Timestamp;
  readonly template: string;
  readonly snapshots: readonly Snapshot[];
}

export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly fullName: string;
  readonly usedBytes: number;
  readonly referencedBytes: number;
  readonly createdAt: Timestamp;
  readonly holds: number;
  readonly clones: readonly string[];
}

export interface Template {
  readonly id: string;
  readonly name: string;
  readonly snapshot: string;
  readonly sourceVolume: string;
  readonly sizeBytes: number;
  readonly referencedBytes: number;
  readonly createdAt: Timestamp;
  readonly clones: readonly string[];
}

export interface Pool {
  readonly name: string;
  readonly sizeBytes: number;
  readonly freeBytes: number;
  readonly allocatedBytes: number;
  readonly provisionedBytes: number;
  readonly compressionRatio: number;
  readonly health: string;
  readonly fragmentationPercent: number;
}

export interface ImportDescription {
  readonly name: string;
  readonly target: 'IMPORT_TARGET_TEMPLATE' | 'IMPORT_TARGET_VOLUME';
  readonly sizeBytes?: number;
  readonly volblocksize?: number;
  readonly sha256?: string;
  readonly id?: string;
}

export interface Import {
  readonly id: string;
  readonly name: string;
  readonly target: ImportDescription['target'];
  readonly source: string;
  readonly state: `IMPORT_STATE_${'PENDING' | 'DOWNLOADING' | 'CONVERTING' | 'WRITING' | 'COMPLETED' | 'FAILED' | 'CANCELLED'}`;
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly error: string;
  readonly createdAt: Timestamp;
  readonly completedAt: Timestamp | null;
  readonly volume: Volume | null;
  readonly template: Template | null;
}

export interface Export {
  readonly offset: number;
  readonly data: Buffer;
  /** In the first and in the last message. */
  readonly totalBytes?: number;
  /** In the last message. */
  readonly sha256: string;
}

/** One of its fields is there; `event` names it. */
export interface Watched {
  readonly time: Timestamp;
  readonly event:
    'synced' | 'resync' | 'volume' | 'volumeDeleted' | 'template' | 'templateDeleted' | 'import';
  readonly volume?: Volume;
  readonly volumeDeleted?: string;
  readonly template?: Template;
  readonly templateDeleted?: string;
  readonly import?: Import;
}
