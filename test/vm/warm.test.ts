import { open, readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, inject, it } from 'vitest';
import { machinesOf } from '../support/machines.ts';
import { shell } from '../support/zfsdev.ts';

const zfsdev = shell(inject('vmHome'));

afterEach(async () => {
  const { instances } = JSON.parse((await zfsdev('list', '--json')).stdout) as {
    instances: { name: string }[];
  };
  if (instances.length > 0) await zfsdev('delete', '--force', ...instances.map(({ name }) => name));
});

async function guest(name: string, ...argv: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await zfsdev('exec', name, '--', ...argv);
  expect({ stderr, exitCode }).toEqual({ stderr: '', exitCode: 0 });
  return stdout.trim();
}

describe('forks of one warm machine', () => {
  it('are machines of their own, with the right time and pools of their own', async () => {
    for (const name of ['a', 'b']) {
      const up = await zfsdev('up', 'zfs-test', '--name', name);
      expect(up.stderr).toContain('Forking the warm machine');
      expect(up.stdout).toContain('state: ONLINE');
      expect(up.stdout).not.toContain('Mismatch');
      expect(up.exitCode).toBe(0);
    }
    const script =
      'hostname; hostid; cat /etc/machine-id /sys/class/net/eth0/address /etc/ssh/ssh_host_ed25519_key.pub';
    const [a, b] = [await guest('a', 'sh', '-c', script), await guest('b', 'sh', '-c', script)].map((text) =>
      text.split('\n'),
    );
    expect(a).toHaveLength(5);
    a?.forEach((line, index) => expect(line).not.toBe(b?.[index]));
    expect(a?.[0]).toBe('a');
    for (const name of ['a', 'b']) {
      const before = Date.now() / 1000;
      const now = Number(await guest(name, 'date', '+%s.%N'));
      expect(now).toBeGreaterThan(before - 1);
      expect(now).toBeLessThan(Date.now() / 1000 + 1);
    }
    await guest('a', 'touch', '/testpool/of-a');
    expect(await guest('b', 'ls', '/testpool')).toBe('');
  });

  it('can be stopped and started, and survive a power cut, as themselves', async () => {
    await zfsdev('up', 'zfs-test', '--name', 'a');
    const identity = 'hostname; hostid; cat /etc/machine-id /sys/class/net/eth0/address';
    const before = await guest('a', 'sh', '-c', identity);
    await guest('a', 'sh', '-c', 'echo kept > /testpool/file; zpool sync testpool');
    expect((await zfsdev('stop', '--force', 'a')).exitCode).toBe(0);
    const start = await zfsdev('start', 'a');
    expect(start.stderr).not.toMatch(/^error:/m);
    expect(await guest('a', 'cat', '/testpool/file')).toBe('kept');
    expect(await guest('a', 'sh', '-c', identity)).toBe(before);
    expect((await zfsdev('stop', 'a')).exitCode).toBe(0);
    expect((await zfsdev('start', 'a')).exitCode).toBe(0);
    expect(await guest('a', 'zpool', 'status', '-x', 'testpool')).toContain('is healthy');
  });

  it('keep the warm state from being removed', async () => {
    await zfsdev('up', 'zfs-test', '--name', 'a');
    const { warm } = JSON.parse((await zfsdev('warm', 'list', '--json')).stdout) as {
      warm: { key: string; usedBy: string[] }[];
    };
    const key = warm.find(({ usedBy }) => usedBy.includes('a'))?.key ?? '';
    const refused = await zfsdev('warm', 'remove', key);
    expect(refused.stderr).toContain('a stands on the warm state');
    expect(refused.exitCode).toBe(4);
  });
});

describe('run', () => {
  it('passes output and exit code through and leaves nothing', async () => {
    const run = await zfsdev(
      'run',
      'zfs-test',
      '--env',
      'WORD=said',
      '--',
      'sh',
      '-c',
      'echo $WORD; zpool list -H -o health; exit 3',
    );
    expect(run).toMatchObject({ exitCode: 3, stdout: 'said\nONLINE' });
    expect(JSON.parse((await zfsdev('list', '--json')).stdout)).toEqual({ instances: [] });
    expect(await machinesOf(zfsdev.home)).toEqual([]);
  });

  it('runs four at once', async () => {
    const run = await zfsdev('run', 'zfs-test', '--count', '4', '--', 'zpool', 'status');
    expect(run.stdout.match(/^\[[1-4]\]\s+state: ONLINE/gm)).toHaveLength(4);
    expect(run.exitCode).toBe(0);
    expect((await zfsdev('list')).stdout).toContain('no instances');
  });

  it('killed by kill -9 leaves a machine that the next run removes', async () => {
    const run = zfsdev.begin('run', 'zfs-test', '--', 'sh', '-c', 'echo begun; sleep 600');
    await run.until('begun');
    run.kill('SIGKILL');
    await run.result;
    expect((await zfsdev('run', 'zfs-test', '--', 'true')).exitCode).toBe(0);
    expect(await readdir(join(zfsdev.home, 'instances'))).toEqual([]);
    expect(await machinesOf(zfsdev.home)).toEqual([]);
  });
});

describe('a damaged warm state', () => {
  it('is noticed before the guest runs: it boots instead, with one warning, and the next one is saved anew', async () => {
    const built = await zfsdev('warm', 'build', 'zfs-test', '--json');
    const { key } = JSON.parse(built.stdout.split('\n').at(-1) ?? '') as { key: string };
    const memory = join(zfsdev.home, 'warm', key, 'memory');
    const file = await open(memory, 'r+');
    const { size } = await stat(memory);
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, Math.floor(size / 2));
    await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, Math.floor(size / 2));
    await file.close();
    const up = await zfsdev('up', 'zfs-test', '--name', 'a');
    expect(up.stderr.match(/^warning:/gm)).toHaveLength(1);
    expect(up.stderr).toContain('is damaged');
    expect(up.stdout).toContain('state: ONLINE');
    const state = JSON.parse(await readFile(join(zfsdev.home, 'instances', 'a', 'state.json'), 'utf8')) as {
      warm?: string;
    };
    expect(state.warm).toBeUndefined();
  });
});
