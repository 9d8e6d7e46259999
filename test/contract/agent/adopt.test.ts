import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adoptFork, awakenGuest, askFacts, type Adoption } from '../../../src/guest/agent-channel.ts';
import { failure, patience, putHarmlessPerl, startTestAgent, type TestAgent } from './support.ts';

let agent: TestAgent;
let programs: string;

beforeEach(async () => {
  programs = await mkdtempBeside();
  await putHarmlessPerl(programs);
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
      'mac eth0 1 525400aabbcc',
      'reseed 20999',
      expect.stringMatching(/^syscall (227|112) \d+ \d+$/) as string,
    ]);
    const [, , seconds, nanoseconds] = (calls[2] ?? '').split(' ').map(Number);
    const set = (seconds ?? 0) * 1000 + (nanoseconds ?? 0) / 1_000_000;
    expect(set).toBeGreaterThanOrEqual(began);
    expect(set).toBeLessThan(Date.now() + 1000);
  });

  it('is not what a machine that stood still needs: only the time and new random numbers', async () => {
    const began = Date.now();
    const facts = await awakenGuest(agent.target, patience());
    expect(facts.pools).toEqual([{ name: 'tank', health: 'ONLINE' }]);
    expect(await text('proc/sys/kernel/hostname')).toBe('saved\n');
    expect((await readFile(join(agent.root, 'dev/urandom'))).length).toBe(64);
    const calls = (await readFile(join(programs, 'calls'), 'utf8')).trim().split('\n').sort();
    expect(calls).toEqual(['reseed 20999', expect.stringMatching(/^syscall (227|112) \d+ \d+$/) as string]);
    expect(Number(calls[1]?.split(' ')[2])).toBeGreaterThanOrEqual(Math.floor(began / 1000));
    await writeFile(join(programs, 'syscall-fails'), '');
    expect((await failure(awakenGuest(agent.target, patience()))).data).toMatchObject({ step: 'time' });
  });

  it('exchanges the secret for all that follows', async () => {
    const mine = adoption();
    await adoptFork(agent.target, mine, patience());
    expect((await failure(askFacts(agent.target, patience()))).data).toMatchObject({
      channel: 'wrong-secret',
    });
    await askFacts({ ...agent.target, secret: () => mine.agentKey }, patience());
    expect((await stat(join(agent.root, 'etc/zfsdev/agent.key'))).mode & 0o777).toBe(0o600);
  });

  it.each([
    ['syscall', 'time', 'clock_settime'],
    ['mac', 'mac', 'SIOCSIFHWADDR'],
    ['reseed', 'entropy', 'RNDRESEEDCRNG'],
  ])(
    'names the step when %s fails, keeps the secret, and can be asked for again',
    async (call, name, words) => {
      await writeFile(join(programs, `${call}-fails`), '');
      const told = await failure(adoptFork(agent.target, adoption(), patience()));
      expect(told.data).toMatchObject({ step: name });
      expect(told.message).toContain(`${words}: Operation not permitted`);
      await rm(join(programs, `${call}-fails`));
      expect((await adoptFork(agent.target, adoption(), patience())).hostname).toBe('fork-1');
    },
  );

  it('names the step when a file can not be written', async () => {
    await rm(join(agent.root, 'etc/ssh'), { recursive: true });
    expect((await failure(adoptFork(agent.target, adoption(), patience()))).data).toMatchObject({
      step: 'sshHostKey',
    });
  });

  it('is refused before anything is done when it is not well formed', async () => {
    const told = await failure(adoptFork(agent.target, { ...adoption(), mac: 'x' }, patience()));
    expect(told.message).toContain('mac');
    expect(await text('proc/sys/kernel/hostname')).toBe('saved\n');
  });
});
