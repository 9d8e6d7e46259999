import { bytes, formatBytes, GiB, MiB, type Bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';

/** Below this a compiler and the guest don't fit. */
const leastMemory = GiB;
/** What is left to the host, beside what runs on it already. */
const hostShare = 512 * MiB;

/** What a host has for a machine. */
export interface HostResources {
  readonly cpus: number;
  /** Bytes. */
  readonly freeMemory: number;
}

export interface Scaled {
  readonly cpus: number;
  readonly memory: Bytes;
  /** What was scaled down, in words for the user. */
  readonly notices: readonly string[];
}

/**
 * A build machine's processors and memory: what is asked for, or what the host has of it.
 * @throws Failure `unsupported` if that is too little memory to compile in
 */
export function scaledTo(host: HostResources, asked: { cpus: number; memory: Bytes }): Scaled {
  const cpus = Math.min(asked.cpus, host.cpus);
  const room = Math.floor((host.freeMemory - hostShare) / MiB) * MiB;
  const memory = bytes(Math.min(asked.memory, Math.max(room, 0)));
  if (memory < leastMemory) {
    throw new Failure(
      'unsupported',
      `this host has ${formatBytes(host.freeMemory)} of free memory, too little for a build machine`,
      { hint: 'end something, or build on the host itself: --builder chroot' },
    );
  }
  const notices = [];
  if (cpus < asked.cpus) {
    const has =
      cpus === 1 ? '1 processor: the machine gets that' : `${cpus} processors: the machine gets those`;
    notices.push(`this host has ${has} instead of ${asked.cpus}`);
  }
  if (memory < asked.memory)
    notices.push(
      `this host has not the memory free: the machine gets ${formatBytes(memory)} instead of ${formatBytes(asked.memory)}`,
    );
  return { cpus, memory, notices };
}
