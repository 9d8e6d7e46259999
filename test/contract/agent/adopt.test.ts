import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { adoptFork, askFacts, type Adoption } from '../../../src/guest/agent-channel.ts';
import { patience, startTestAgent, type TestAgent } from './support.ts';

let agent: TestAgent;
let programs: string;

/** Stand-ins that record their words; the real ones would change this host. */
async function play(name: string, exitCode = 0): Promise<void> {
  await writeFile(
    join(programs, name),
    `#!/bin/sh\necho "${name} $*" >>"${programs}/calls"\necho "${name} says no" >&2\nexit ${exitCode}\n`,
    { mode: 0o755 },
  );
}

beforeEach(async () => {
  programs = await mkdtempBeside();
  await Promise.all(['date', 'ip'].map((name) => play(name)));
  // The helper that makes the agent's pipes stays; the ioctl is not for this host.
  await writeFile(
    join(programs, 'perl'),
    `#!/bin/sh\ncase "$2" in ioctl*) echo "perl ioctl" >>"${programs}/calls" ;; *) exec /usr/bin/perl "$@" ;; esac\n`,
    { mode: 0o755 },
  );
  agent = await startTestAgent({ path: programs });
});
afterEach(async () => {
  await agent.remove();
  await rm(programs, { recursive: true, force: true });
});

async function mkdtempBeside(): Promise<string> {
  const { mkdtemp } = await import('node:fs/promises');
  const { tmpdir } = await import('node:os');
  return mkdtemp(join(tmpdir(), 'zfsdev-programs-'));
}

const adoption = (): Omit<Adoption, 'time'> => ({
  hostname: 'fork-1',
  machineId: 'ab'.repeat(16),
  hostid: '01020384',
  mac: '52:54:00:aa:bb:cc',
  sshHostKey: '-----BEGIN OPENSSH PRIVATE KEY-----\nnew\n-----END OPENSSH PRIVATE KEY-----\n',
  sshHostPublicKey: 'ssh-ed25519 AAAA fork-1\n',
  agentKey: 'cd'.repeat(32),
  entropy: 'ef'.repeat(64),
});

const text = (path: string): Promise<string> => readFile(join(agent.root, path), 'utf8');

async function failure(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('an adoption', () => {
  it('makes the machine its own and gives its facts', async () => {
    await writeFile(join(agent.root, 'etc/hostid'), Buffer.from([5, 6, 7, 8]));
    const [mine, began] = [adoption(), Date.now()];
    const facts = await adoptFork(agent.target, mine, patience());
    expect(facts).toMatchObject({
      hostname: 'fork-1',
      machineId: mine.machineId,
      uptime: 12.34,
      load: [0.1, 0.2, 0.3],
      memory: { total: 1_024_000, available: 512_000 },
      pools: [{ name: 'tank', health: 'ONLINE' }],
    });
    expect(facts.root.total).toBeGreaterThan(facts.root.free);
    expect(await text('etc/hostname')).toBe('fork-1\n');
    expect(await text('etc/hosts')).toContain('127.0.1.1 fork-1\n');
    expect(await text('etc/machine-id')).toBe(`${mine.machineId}\n`);
    expect(await readFile(join(agent.root, 'etc/hostid'))).toEqual(Buffer.from([1, 2, 3, 0x84]));
    // The former bytes as the number they are on a little-endian machine: the imported pool goes by it.
    expect(await text('sys/module/spl/parameters/spl_hostid')).toBe('0x8070605\n');
    expect(await text('etc/zfsdev/forked')).toBe('');
    expect(await text('etc/ssh/ssh_host_ed25519_key')).toBe(mine.sshHostKey);
    expect((await stat(join(agent.root, 'etc/ssh/ssh_host_ed25519_key'))).mode & 0o777).toBe(0o600);
    expect(await text('etc/ssh/ssh_host_ed25519_key.pub')).toBe(mine.sshHostPublicKey);
    expect(await readFile(join(agent.root, 'dev/urandom'))).toEqual(Buffer.alloc(64, 0xef));
    const calls = (await readFile(join(programs, 'calls'), 'utf8')).trim().split('\n').sort();
    expect(calls).toEqual([
      expect.stringMatching(/^date -u -s @\d+\.\d{3}$/) as string,
      'ip link set dev eth0 address 52:54:00:aa:bb:cc',
      'perl ioctl',
    ]);
    const set = Number(calls[0]?.split('@')[1]) * 1000;
    expect(set).toBeGreaterThanOrEqual(began);
    expect(set).toBeLessThan(Date.now() + 1000);
  });

  it('exchanges the secret for all that follows', async () => {
    const mine = adoption();
    await adoptFork(agent.target, mine, patience());
    expect((await failure(askFacts(agent.target, patience()))).data).toMatchObject({
      channel: 'wrong-secret',
    });
    await askFacts({ ...agent.target, secret: () => Promise.resolve(mine.agentKey) }, patience());
    expect((await stat(join(agent.root, 'etc/zfsdev/agent.key'))).mode & 0o777).toBe(0o600);
  });

  it.each(['date', 'ip'])(
    'names the step when %s fails, keeps the secret, and can be asked for again',
    async (name) => {
      await play(name, 1);
      const told = await failure(adoptFork(agent.target, adoption(), patience()));
      expect(told.data).toMatchObject({ step: name === 'ip' ? 'mac' : 'time' });
      expect(told.message).toContain(`${name} says no`);
      await play(name);
      expect((await adoptFork(agent.target, adoption(), patience())).hostname).toBe('fork-1');
    },
  );

  it('names the step when a file can not be written', async () => {
    await rm(join(agent.root, 'etc/ssh'), { recursive: true });
    expect((await failure(adoptFork(agent.target, adoption(), patience()))).data).toMatchObject({
      step: 'sshHostKey',
    });
  });

  it('leaves a process alone that is no sshd', async () => {
    await mkdir(join(agent.root, 'run'), { recursive: true });
    await writeFile(join(agent.root, 'run/sshd.pid'), `${process.pid}\n`);
    await adoptFork(agent.target, adoption(), patience());
  });

  it('is refused before anything is done when it is not well formed', async () => {
    const told = await failure(adoptFork(agent.target, { ...adoption(), mac: 'x' }, patience()));
    expect(told.message).toContain('mac');
    expect(await text('proc/sys/kernel/hostname')).toBe('saved\n');
  });
});
