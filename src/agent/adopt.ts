import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { under, type AgentConfig } from './config.ts';
import type { KernelCalls } from './kernel-calls.ts';
import type { Adoption, Awakening } from './protocol.ts';

const keyFile = '/etc/zfsdev/agent.key';
const hostKeyFile = '/etc/ssh/ssh_host_ed25519_key';

/** A step of the adoption that failed, by name. */
export class StepError extends Error {
  override readonly name = 'StepError';
  readonly step: string;

  constructor(step: string, cause: unknown) {
    super(`${step}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.step = step;
  }
}

/**
 * Makes this machine, forked from saved memory, its own, without starting a process: an emulated machine would spend
 * most of its first second on that. The channel's new secret comes last, so that a half-done adoption can be asked for
 * again. `arrived` is the `performance.now()` at which the request came in. sshd needs no telling: it is started for
 * each connection, and reads the key that lies there then.
 */
export async function adopt(
  { config, kernel }: { readonly config: AgentConfig; readonly kernel: KernelCalls },
  adoption: Adoption,
  arrived: number,
): Promise<void> {
  const random = under(config, '/dev/urandom');
  step('entropy', () => writeFileSync(random, Buffer.from(adoption.entropy, 'hex')));
  nameMachine(config, adoption);
  // The pool's label still holds the host id of the saved machine; pool.sh asks for this file when it imports.
  step('hostid', () => replace(config, '/etc/zfsdev/forked', '', 0o600));
  step('sshHostKey', () => {
    replace(config, hostKeyFile, adoption.sshHostKey, 0o600);
    replace(config, `${hostKeyFile}.pub`, adoption.sshHostPublicKey, 0o644);
  });
  step('mac', () => announceAddress(config));
  await Promise.all([
    called('entropy', kernel.reseed(random)),
    called('time', kernel.setTime(adoption.time + performance.now() - arrived)),
    called('mac', kernel.setAddress('eth0', adoption.mac)),
  ]);
  step('agentKey', () => replace(config, keyFile, `${adoption.agentKey}\n`, 0o600));
}

/**
 * Tells this machine, which stood still or was taken back to an earlier moment, what time it is, and gives it random
 * numbers of its own: it may be taken back to the same moment again.
 */
export async function awaken(
  { config, kernel }: { readonly config: AgentConfig; readonly kernel: KernelCalls },
  { time, entropy }: Awakening,
  arrived: number,
): Promise<void> {
  const random = under(config, '/dev/urandom');
  step('entropy', () => writeFileSync(random, Buffer.from(entropy, 'hex')));
  await Promise.all([
    called('entropy', kernel.reseed(random)),
    called('time', kernel.setTime(time + performance.now() - arrived)),
  ]);
}

async function called(name: string, call: Promise<void>): Promise<void> {
  try {
    await call;
  } catch (error) {
    throw new StepError(name, error);
  }
}

function nameMachine(config: AgentConfig, { hostname, machineId, hostid }: Adoption): void {
  step('hostname', () => {
    writeFileSync(under(config, '/proc/sys/kernel/hostname'), `${hostname}\n`);
    replace(config, '/etc/hostname', `${hostname}\n`, 0o644);
    const hosts = `127.0.0.1 localhost\n127.0.1.1 ${hostname}\n::1 localhost ip6-localhost ip6-loopback\n`;
    replace(config, '/etc/hosts', hosts, 0o644);
  });
  step('machineId', () => replace(config, '/etc/machine-id', `${machineId}\n`, 0o444));
  step('hostid', () => {
    keepPoolsHostid(config);
    replace(config, '/etc/hostid', Buffer.from(hostid, 'hex'), 0o644);
  });
}

/**
 * An imported pool keeps the host id it was imported under until it is exported, and `zpool status` complains where the
 * system's differs. So the module goes on with the old one while this boot lasts; everybody else asks /etc/hostid.
 */
function keepPoolsHostid(config: AgentConfig): void {
  const parameter = under(config, '/sys/module/spl/parameters/spl_hostid');
  if (!existsSync(parameter)) return;
  const file = under(config, '/etc/hostid');
  if (Number(readFileSync(parameter, 'utf8')) !== 0 || !existsSync(file)) return;
  // The file holds the number in the machine's byte order.
  writeFileSync(parameter, `0x${readFileSync(file).readUInt32LE(0).toString(16)}\n`);
}

/** Has the kernel tell the network of the address that is about to change, so that open connections go on. */
function announceAddress(config: AgentConfig): void {
  const setting = under(config, '/proc/sys/net/ipv4/conf/eth0/arp_notify');
  if (existsSync(setting)) writeFileSync(setting, '1\n');
}

/**
 * Written in place and not flushed: renaming would double what an emulated machine has to do here, nobody reads these files
 * meanwhile, and the seed writes the same at the next boot.
 */
function replace(config: AgentConfig, path: string, content: string | Uint8Array, mode: number): void {
  const target = under(config, path);
  writeFileSync(target, content, { mode });
  chmodSync(target, mode);
}

function step(name: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw new StepError(name, error);
  }
}
