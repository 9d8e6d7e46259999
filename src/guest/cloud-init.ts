import { stringify } from 'yaml';
import type { KeyPair } from './keys.ts';

/** What cloud-init is told of one machine. */
export interface CloudSettings {
  readonly name: string;
  /** Told apart by it from any other machine that the same disk was before: what is done once is done once for each. */
  readonly instanceId: string;
  /** Public key that opens the machine. */
  readonly userKey: string;
  readonly hostKey: KeyPair;
  /** Contents of /etc/zfsdev/pool.conf, if it is to have a pool. */
  readonly poolConf?: string;
  /** Contents of /etc/zfsdev/mounts, if it is to have shares. */
  readonly mounts?: string;
  /** Run at each boot, in this order. */
  readonly scripts: readonly { readonly file: string; readonly text: string }[];
  /** The script that runs those (provision/run-scripts.sh). */
  readonly runner: string;
}

/** What `run-scripts.sh` tells of itself; the defaults in it. */
export const provisionState = '/run/zfsdev/provision';
export const provisionLog = '/var/log/zfsdev-provision.log';

/** The label by which cloud-init's source NoCloud knows a disk with its settings. */
export const seedLabel = 'cidata';

/**
 * The files of a NoCloud seed: a machine with this name, these keys, and its root file system as large as its disk, which
 * runs the scripts at each boot. There is no `network-config`: without one, cloud-init asks for an address on the only card
 * there is, in whatever way the image's own system has.
 */
export function seedContents(settings: CloudSettings): Map<string, string> {
  const { name, instanceId } = settings;
  return new Map([
    ['meta-data', stringify({ 'instance-id': instanceId, 'local-hostname': name })],
    ['user-data', `#cloud-config\n${stringify(userData(settings), { lineWidth: 0, blockQuote: 'literal' })}`],
  ]);
}

function userData({ name, userKey, hostKey, poolConf, mounts, scripts, runner }: CloudSettings): object {
  const file = (path: string, content: string, permissions: string): object => ({
    path,
    content,
    owner: 'root:root',
    permissions,
  });
  return {
    hostname: name,
    preserve_hostname: false,
    // sudo and others look the machine's own name up.
    manage_etc_hosts: 'localhost',
    // zfsdev's commands are root's on every machine; otherwise its key would only print who to log in as.
    disable_root: false,
    ssh_pwauth: false,
    ssh_authorized_keys: [userKey.trim()],
    // The host knows this one beforehand, so that nobody else can pose as the machine.
    ssh_deletekeys: true,
    ssh_keys: { ed25519_private: hostKey.privateKey, ed25519_public: hostKey.publicKey.trim() },
    growpart: { mode: 'auto', devices: ['/'] },
    resize_rootfs: true,
    write_files: [
      ...(poolConf === undefined ? [] : [file('/etc/zfsdev/pool.conf', poolConf, '0644')]),
      ...(mounts === undefined ? [] : [file('/etc/zfsdev/mounts', mounts, '0600')]),
      ...scripts.map(({ file: script, text }, index) =>
        file(`/etc/zfsdev/provision/${String(index + 1).padStart(2, '0')}-${script}`, text, '0755'),
      ),
      file('/var/lib/cloud/scripts/per-boot/zfsdev', runner, '0755'),
    ],
  };
}
