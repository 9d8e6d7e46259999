import { join } from 'node:path';
import { agentPort } from './protocol.ts';

/** What the agent is told at its start; tests redirect its files and its port. */
export interface AgentConfig {
  readonly port: number;
  readonly address: string;
  /** Put before every path that the agent itself reads and writes (not before those of commands). */
  readonly root: string;
  /** Milliseconds for a connection to prove itself and to send its request. */
  readonly handshakeDeadline: number;
  /** Connections that have not proved themselves; further ones are closed at once, and the host tries again. */
  readonly strangers: number;
  /** Milliseconds between SIGHUP and SIGKILL for a command whose connection is gone. */
  readonly grace: number;
}

export const defaultConfig: AgentConfig = {
  port: agentPort,
  address: '0.0.0.0',
  root: '/',
  handshakeDeadline: 10_000,
  strangers: 256,
  grace: 2_000,
};

/** Where the agent finds a file of its machine. */
export function under(config: AgentConfig, path: string): string {
  return join(config.root, path);
}

/** Reads `[PORT] [--address A] [--root DIR] [--handshake-deadline MS] [--grace MS] [--strangers N]`. @throws Error */
export function parseArguments(args: readonly string[]): AgentConfig {
  let config = defaultConfig;
  for (let index = 0; index < args.length; index += 1) {
    const word = args[index] ?? '';
    if (/^\d+$/.test(word)) {
      config = { ...config, port: Number(word) };
      continue;
    }
    index += 1;
    const value = args[index];
    if (value === undefined) throw new Error(`${word} wants a value`);
    config = { ...config, ...option(word, value) };
  }
  return config;
}

function option(name: string, value: string): Partial<AgentConfig> {
  switch (name) {
    case '--address':
      return { address: value };
    case '--root':
      return { root: value };
    case '--handshake-deadline':
      return { handshakeDeadline: Number(value) };
    case '--grace':
      return { grace: Number(value) };
    case '--strangers':
      return { strangers: Number(value) };
    default:
      throw new Error(`unknown option ${name}`);
  }
}
