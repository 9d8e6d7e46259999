import type { Bytes } from '../core/bytes.ts';
import type { InstanceName } from '../core/names.ts';

export type DriverName = 'qemu' | 'lima';
export type AcceleratorChoice = 'auto' | 'kvm' | 'hvf' | 'tcg';

/** One line of the worst-case table: a part of the machine and the most it can take on the guest's disk. */
export interface WorstCasePart {
  readonly part: 'base' | 'packages' | 'tools' | 'source' | 'artifacts' | 'kernel' | 'pool' | 'headroom';
  readonly size: Bytes;
}

export interface PoolSpec {
  readonly name: string;
  readonly layout: 'mirror';
  /** Sparse files in the guest, on loop devices; one mirror of all. */
  readonly fileCount: number;
  readonly fileSize: Bytes;
  readonly ashift: number;
  readonly autotrim: boolean;
  /** File system properties of the pool's root dataset (`compression`, `quota` ...), in the template's order. */
  readonly properties: Readonly<Record<string, string>>;
}

/** A template after defaults, flags and validation: the only form that the rest of the code sees. */
export interface Spec {
  /** The template's name (`zfs-test`), or the path of the user's file. */
  readonly template: string;
  readonly name: InstanceName;
  readonly description: string;
  /** `undefined` where neither the template nor the user chose: the platform decides. */
  readonly driver?: DriverName;
  readonly accelerator: AcceleratorChoice;
  readonly cpus: number;
  readonly memory: Bytes;
  /** Virtual size of the machine's disk. */
  readonly disk: Bytes;
  readonly image: { readonly flavour: 'zfs' | 'base'; readonly suite: 'trixie' | 'sid' };
  readonly pool?: PoolSpec;
  readonly worstCase: readonly WorstCasePart[];
}
