import type { Duplex } from 'node:stream';
import type { Streams } from '../host/run.ts';

export type { Streams };

export interface ExecOptions {
  /** Milliseconds; 0 for none (a person's shell). */
  readonly deadline: number;
  readonly signal: AbortSignal;
  readonly input?: string | Uint8Array;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How zfsdev runs commands in a guest and moves files, whatever the driver. */
export interface Channel {
  /** Runs a command and collects its output. @throws Failure if the guest can't be reached; a non-zero exit is an answer. */
  exec(argv: readonly string[], options: ExecOptions): Promise<ExecResult>;
  /**
   * Runs a command with this process's own standard input, output and error; gives its exit code. Without a command a
   * login shell. `tty` asks for a terminal in the guest.
   */
  attach(
    argv: readonly string[],
    options: { readonly tty: boolean; readonly signal: AbortSignal },
  ): Promise<number>;
  /** Copies files or folders into a folder (or to a file name) of the guest. */
  copyIn(sources: readonly string[], destination: string, signal: AbortSignal): Promise<void>;
  /** Leads to a socket in the guest. @throws Failure `guest` if nothing answers there */
  connect(path: string, signal: AbortSignal): Promise<Duplex>;
  copyOut(sources: readonly string[], destination: string, signal: AbortSignal): Promise<void>;
  /** Lets go of kept connections. */
  close(): Promise<void>;
}
