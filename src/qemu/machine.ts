import type { Bytes } from '../core/bytes.ts';
import type { StorageDrive } from './storage-argv.ts';

export type Architecture = 'x86_64' | 'aarch64';
export type Accelerator = 'kvm' | 'hvf' | 'tcg';

/**
 * Where the guest's memory lies. A `shared` file is written through, so that it is the saved memory once the machine
 * stands still; any other file is only read, and a page that the guest writes becomes the machine's own.
 */
export type Ram =
  { readonly kind: 'own' } | { readonly kind: 'file'; readonly path: string; readonly shared: boolean };

/** From where a machine boots. */
export type Boot =
  | {
      readonly kind: 'kernel';
      readonly kernel: string;
      readonly initrd: string;
      readonly commandLine: string;
    }
  | {
      /** From its own disk. */
      readonly kind: 'firmware';
      /** Without: by the BIOS that QEMU brings along. */
      readonly uefi?: { readonly code: Flash; readonly variables?: Flash };
      /** A disk that is only read, with the settings of this machine. */
      readonly seed: string;
    };

/** A file that is flash memory to the machine. */
export interface Flash {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
}

/** All that the argv planner needs to know of one machine; every path is absolute. */
export interface Machine {
  readonly name: string;
  readonly architecture: Architecture;
  readonly accelerator: Accelerator;
  readonly cpus: number;
  readonly memory: Bytes;
  readonly boot: Boot;
  readonly disk: string;
  /** A file system with the modules of a kernel that isn't the image's own; it is only read. */
  readonly modules?: string;
  /** Disks and shares beside the disk, in the order of the template. */
  readonly storage?: readonly StorageDrive[];
  readonly mac: string;
  /** ssh of the guest on this port of 127.0.0.1. */
  readonly sshPort: number;
  /** The command channel's agent in the guest on this port of 127.0.0.1; without one, nothing leads to it. */
  readonly commandPort?: number;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  /** Files that take the console and the event line (see `serialPorts`). */
  readonly consoleLog: string;
  readonly eventLog: string;
  readonly pidFile: string;
  /** The machine's own unless told. */
  readonly ram?: Ram;
  /** Waits to be told by QMP what saved state to take over, and stands still afterwards, instead of booting. */
  readonly restores?: boolean;
  /** Stands still before its first instruction, to be told what to run. */
  readonly paused?: boolean;
}

/** No place for any of a machine's files: what is left tells whether saved memory fits it. */
export const nowhere = {
  disk: '',
  qmpSocket: '',
  agentSocket: '',
  consoleLog: '',
  eventLog: '',
  pidFile: '',
} as const satisfies Partial<Machine>;

/** PCI ports for disks, `port1` and so on: what is in one can be unplugged while the machine runs, and what is free be filled. */
export const diskPorts = 4;

/** The port the agent listens on in the guest (zfsdev-agent.service). */
export const agentGuestPort = 1023;

/** The guest's names of the device that is its console and of the one that it writes its events to. */
export interface SerialPorts {
  readonly console: string;
  readonly events: string;
}

/**
 * On x86_64 both are ISA ports. The arm64 `virt` machine has a single PL011, so the event line is a PCI 16550 there,
 * the first port of the 8250 driver. The console is never shared with the events: a getty that takes the console over
 * hangs up whoever else writes to it.
 */
export function serialPorts(architecture: Architecture): SerialPorts {
  return architecture === 'x86_64'
    ? { console: 'ttyS0', events: 'ttyS1' }
    : { console: 'ttyAMA0', events: 'ttyS0' };
}

/**
 * The kernel's command line for the built-in images: root on the first virtio disk, the console on the serial port,
 * and a panic that ends the machine (by the reboot that `-no-reboot` turns into an exit) instead of a machine that
 * stands still. Mitigations are off: a test machine runs its owner's own code, and under TCG they cost most. There,
 * programs lie at the same addresses each time they run, too: what is translated of one belongs to its address, so that at
 * random ones each process is translated anew. Starting 600 small programs takes a quarter of the time.
 */
export function kernelCommandLine(architecture: Architecture, accelerator: Accelerator): string {
  const { console } = serialPorts(architecture);
  return [
    `console=${console}`,
    'root=/dev/vda',
    'rw',
    'net.ifnames=0',
    'loglevel=4',
    'panic=-1',
    'mitigations=off',
    ...(accelerator === 'tcg' ? ['norandmaps'] : []),
  ].join(' ');
}
