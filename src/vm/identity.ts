import { randomBytes } from 'node:crypto';
import type { Adoption } from '../guest/agent-channel.ts';
import type { KeyPair } from '../guest/keys.ts';
import { renderMounts } from '../template/mounts.ts';
import { renderPoolConf } from '../template/pool-conf.ts';
import type { Spec } from '../template/spec.ts';
import type { Instance } from './instance.ts';

/** What makes a machine itself. */
export interface Identity {
  /** In QEMU's own range of locally administered addresses. */
  readonly mac: string;
  /** 32 hexadecimal digits, as in /etc/machine-id. */
  readonly machineId: string;
}

/** A newcomer's identity. */
export function newIdentity(): Identity {
  const [a, b, c] = randomBytes(3).toString('hex').match(/../g) ?? [];
  return { mac: `52:54:00:${a}:${b}:${c}`, machineId: randomBytes(16).toString('hex') };
}

/** The eight digits of /etc/hostid, which ZFS goes by: derived, so that they are as stable and unique as the machine id. */
export function hostidOf({ machineId }: Identity): string {
  return machineId.slice(0, 8);
}

/** The secrets that were made for an instance. */
export interface Secrets {
  readonly hostKey: KeyPair;
  /** 64 hexadecimal digits. */
  readonly agentKey: string;
}

/** All that a machine forked from saved memory is told to become this instance. */
export function adoptionOf(
  { name, state }: Pick<Instance, 'name' | 'state'>,
  { hostKey, agentKey }: Secrets,
): Omit<Adoption, 'time'> {
  return {
    hostname: name,
    machineId: state.machineId,
    hostid: hostidOf(state),
    mac: state.mac,
    sshHostKey: hostKey.privateKey,
    sshHostPublicKey: hostKey.publicKey,
    agentKey,
    entropy: randomBytes(64).toString('hex'),
  };
}

/** What the guest gets to run the command channel. */
export interface AgentFiles {
  readonly program: string | Uint8Array;
  /** 64 hexadecimal digits. */
  readonly key: string;
}

/** What the guest runs for the host. */
export interface GuestPrograms {
  readonly agent: AgentFiles;
  /** The volume manager, for a machine with a pool. */
  readonly zvold: string | Uint8Array;
}

/** The files the guest's initrd puts in place at each boot, so that the image itself belongs to nobody. */
export function seedFiles(
  spec: Spec,
  identity: Identity,
  userKey: string,
  hostKey: KeyPair,
  { agent, zvold }: GuestPrograms,
): Map<string, string | Uint8Array> {
  const files = new Map<string, string | Uint8Array>([
    ['hostname', `${spec.name}\n`],
    ['machine-id', `${identity.machineId}\n`],
    ['hostid', Buffer.from(hostidOf(identity), 'hex')],
    ['authorized_keys', userKey],
    ['ssh_host_ed25519_key', hostKey.privateKey],
    ['ssh_host_ed25519_key.pub', hostKey.publicKey],
    ['agent.mjs', agent.program],
    ['agent.key', `${agent.key}\n`],
  ]);
  if (spec.pool) {
    files.set('pool.conf', renderPoolConf(spec.pool));
    files.set('zvold.cjs', zvold);
  }
  const mounts = renderMounts(spec.storage);
  if (mounts !== undefined) files.set('mounts', mounts);
  return files;
}
