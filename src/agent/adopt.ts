import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { under, type AgentConfig } from './config.ts';
import type { Adoption } from './protocol.ts';

const keyFile = '/etc/zfsdev/agent.key';
const hostKeyFile = '/etc/ssh/ssh_host_ed25519_key';

/**
 * The kernel takes what was written to /dev/urandom into account within a minute; until then forks would draw the same
 * numbers. RNDRESEEDCRNG makes it do so now. ENODATA (61) says that it has drawn none yet. Perl is in every Debian.
 */
const reseed = 'ioctl(STDIN, 0x5207, 0) or $! == 61 or die "$!\\n"';

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
 * Makes this machine, forked from saved memory, its own. Files first, then the few processes it takes, side by side;
 * the channel's new secret last, so that a half-done adoption can be asked for again. `arrived` is the
 * `performance.now()` at which the request came in.
 */
export async function adopt(config: AgentConfig, adoption: Adoption, arrived: number): Promise<void> {
  step('entropy', () => writeFileSync(under(config, '/dev/urandom'), Buffer.from(adoption.entropy, 'hex')));
  nameMachine(config, adoption);
  // The pool's label still holds the host id of the saved machine; pool.sh asks for this file when it imports.
  step('hostid', () => replace(config, '/etc/zfsdev/forked', '', 0o600));
  step('sshHostKey', () => {
    replace(config, hostKeyFile, adoption.sshHostKey, 0o600);
    replace(config, `${hostKeyFile}.pub`, adoption.sshHostPublicKey, 0o644);
  });
  step('mac', () => announceAddress(config));
  step('sshd', () => tellSshd(config));
  await Promise.all([
    program('entropy', ['perl', '-e', reseed], under(config, '/dev/urandom')),
    program('time', ['date', '-u', '-s', `@${secondsNow(adoption.time, arrived)}`]),
    program('mac', ['ip', 'link', 'set', 'dev', 'eth0', 'address', adoption.mac]),
  ]);
  step('agentKey', () => replace(config, keyFile, `${adoption.agentKey}\n`, 0o600));
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
 * SIGHUP makes sshd start over with the key that lies there now; sessions live on. Its own pid file is asked, and its
 * name, since a stale file may name anybody. No sshd, nothing to tell: it will read the new key when it starts.
 */
function tellSshd(config: AgentConfig): void {
  const pidFile = under(config, '/run/sshd.pid');
  if (!existsSync(pidFile)) return;
  const pid = Number(readFileSync(pidFile, 'utf8').trim());
  const nameFile = `/proc/${pid}/comm`;
  if (!(pid > 1) || !existsSync(nameFile) || readFileSync(nameFile, 'utf8').trim() !== 'sshd') return;
  process.kill(pid, 'SIGHUP');
}

/** The host's time when the request was sent and what has passed since, as seconds with a fraction. */
function secondsNow(sent: number, arrived: number): string {
  return ((sent + performance.now() - arrived) / 1000).toFixed(3);
}

/** Readers see the old file or the new one, whole. Not flushed: the seed writes the same at the next boot. */
function replace(config: AgentConfig, path: string, content: string | Uint8Array, mode: number): void {
  const target = under(config, path);
  const beside = `${target}.zfsdev-new`;
  rmSync(beside, { force: true });
  writeFileSync(beside, content, { mode });
  renameSync(beside, target);
}

function step(name: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw new StepError(name, error);
  }
}

/** Runs one program to its end, its standard input from a file if one is named. */
async function program(
  name: string,
  argv: readonly [string, ...string[]],
  input = '/dev/null',
): Promise<void> {
  const [command, ...args] = argv;
  try {
    const stdin = openSync(input, 'r');
    const child = spawn(command, args, { stdio: [stdin, 'ignore', 'pipe'] });
    closeSync(stdin);
    let words = '';
    child.stderr?.on('data', (chunk: Buffer) => (words += chunk.toString()));
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code) =>
        code === 0 ? resolve() : reject(new Error(`${command} failed: ${words.trim()}`)),
      );
    });
  } catch (error) {
    throw new StepError(name, error);
  }
}
