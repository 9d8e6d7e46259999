import type { Bytes } from '../core/bytes.ts';

export type Architecture = 'x86_64' | 'aarch64';
export type Accelerator = 'kvm' | 'hvf' | 'tcg';

/** All that the argv planner needs to know of one machine; every path is absolute. */
export interface Machine {
  readonly name: string;
  readonly architecture: Architecture;
  readonly accelerator: Accelerator;
  readonly cpus: number;
  readonly memory: Bytes;
  readonly kernel: string;
  readonly initrd: string;
  readonly commandLine: string;
  readonly disk: string;
  readonly mac: string;
  /** ssh of the guest on this port of 127.0.0.1. */
  readonly sshPort: number;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  /** Files that take the console (ttyS0) and the event line (ttyS1). */
  readonly consoleLog: string;
  readonly eventLog: string;
  readonly pidFile: string;
}
