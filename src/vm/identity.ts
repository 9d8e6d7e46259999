import { randomBytes } from 'node:crypto';
import type { KeyPair } from '../guest/keys.ts';
import { renderPoolConf } from '../template/pool-conf.ts';
import type { Spec } from '../template/spec.ts';

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

/** The files the guest's initrd puts in place at each boot, so that the image itself belongs to nobody. */
export function seedFiles(
  spec: Spec,
  identity: Identity,
  userKey: string,
  hostKey: KeyPair,
): Map<string, string | Uint8Array> {
  const files = new Map<string, string | Uint8Array>([
    ['hostname', `${spec.name}\n`],
    ['machine-id', `${identity.machineId}\n`],
    // ZFS takes its host id from here; derived, so that it is stable and as unique as the machine id.
    ['hostid', Buffer.from(identity.machineId.slice(0, 8), 'hex')],
    ['authorized_keys', userKey],
    ['ssh_host_ed25519_key', hostKey.privateKey],
    ['ssh_host_ed25519_key.pub', hostKey.publicKey],
  ]);
  if (spec.pool) files.set('pool.conf', renderPoolConf(spec.pool));
  return files;
}
