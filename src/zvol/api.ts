import type {
  Export,
  Import,
  ImportDescription,
  Pool,
  Snapshot,
  Template,
  Volume,
  Watched,
} from './messages.ts';

/** What a client of zvold's own contract can do; each method is one of its calls. */
export interface ZvoldClient {
  pool(): Promise<Pool>;
  /** @param vdevs words as zpool create takes them */
  createPool(vdevs: readonly string[], properties: Readonly<Record<string, string>>): Promise<Pool>;
  volumes(): Promise<Volume[]>;
  volume(volume: string): Promise<Volume>;
  createVolume(wanted: {
    name: string;
    sizeBytes: number;
    volblocksize?: number;
    thick?: boolean;
    id?: string;
  }): Promise<Volume>;
  resizeVolume(volume: string, sizeBytes: number): Promise<Volume>;
  renameVolume(volume: string, newName: string): Promise<Volume>;
  deleteVolume(volume: string): Promise<void>;
  createSnapshot(volume: string, name: string, id?: string): Promise<Snapshot>;
  deleteSnapshot(volume: string, snapshot: string, deferred?: boolean): Promise<{ deferred: boolean }>;
  holdSnapshot(volume: string, snapshot: string, tag: string): Promise<Snapshot>;
  releaseSnapshot(volume: string, snapshot: string, tag: string): Promise<Snapshot | undefined>;
  rollback(volume: string, snapshot: string, deleteNewer?: boolean): Promise<Volume>;
  templates(): Promise<Template[]>;
  createTemplate(wanted: { name: string; volume: string; snapshot: string; id?: string }): Promise<Template>;
  deleteTemplate(template: string): Promise<void>;
  cloneTemplate(wanted: { template: string; name: string; sizeBytes?: number; id?: string }): Promise<Volume>;
  startImport(description: ImportDescription, source: string): Promise<Import>;
  /** Sends bytes of this host as an import; ends when the template or volume is there. */
  upload(description: ImportDescription, bytes: AsyncIterable<Buffer>): Promise<Import>;
  imports(includeCompleted?: boolean): Promise<Import[]>;
  import(id: string): Promise<Import>;
  /** @param signal in place of that of `connect`: who tidies up after that one was aborted needs another */
  cancelImport(id: string, signal?: AbortSignal): Promise<{ cancelled: boolean }>;
  export(
    wanted: { volume: string; snapshot?: string; format?: 'raw' | 'qcow2' },
    signal: AbortSignal,
  ): AsyncIterable<Export>;
  watch(signal: AbortSignal): AsyncIterable<Watched>;
  close(): Promise<void>;
}

/** Whose machine it is, and how long. */
export interface ConnectOptions {
  /** The state home, where it is not `ZFSDEV_HOME` or `~/.zfsdev`. */
  readonly home?: string;
  /** Ends every call that is under way. */
  readonly signal?: AbortSignal;
}
