import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ownHome, removeAll } from '../support/home.ts';
import { inGuest } from '../support/in-guest.ts';
import { machinesOf } from '../support/machines.ts';

const zfsdev = ownHome();

afterEach(() => removeAll(zfsdev));

const guest = (name: string, ...argv: string[]): Promise<string> => inGuest(zfsdev, name, ...argv);

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

  it('tells output and outcome as JSON lines', async () => {
    const run = await zfsdev(
      'run',
      'zfs-test',
      '--json',
      '--',
      'sh',
      '-c',
      'printf half; echo bad >&2; exit 4',
    );
    const lines = run.stdout.split('\n').map((line) => JSON.parse(line) as object);
    expect(lines).toContainEqual({ type: 'output', machine: 1, stream: 'stdout', text: 'half' });
    expect(lines).toContainEqual({ type: 'output', machine: 1, stream: 'stderr', text: 'bad' });
    expect(lines.at(-1)).toMatchObject({ type: 'result', runs: [{ exitCode: 4 }] });
    expect(run.exitCode).toBe(4);
  });

  it('copies in and out, and ends what takes too long', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'zfsdev-run-'));
    try {
      await writeFile(join(folder, 'in'), 'text\n');
      const out = join(folder, 'out');
      const copies = ['--copy-in', `${join(folder, 'in')}:/root/in`, '--copy-out', `/root/out:${out}`];
      const run = await zfsdev(
        'run',
        'zfs-test',
        ...copies,
        '--',
        'sh',
        '-c',
        'tr a-z A-Z </root/in >/root/out',
      );
      expect(run).toMatchObject({ exitCode: 0 });
      expect(await readFile(out, 'utf8')).toBe('TEXT\n');
    } finally {
      await rm(folder, { recursive: true });
    }
    const late = await zfsdev('run', 'zfs-test', '--timeout', '2s', '--', 'sleep', '600');
    expect(late.stderr).toContain('did not end within');
    expect(late.exitCode).toBe(124);
    expect((await zfsdev('list')).stdout).toContain('no instances');
  });

  it('kept on failure leaves the machine there until it is deleted', async () => {
    const run = await zfsdev('run', 'zfs-test', '--keep-on-failure', '--', 'false');
    expect(run.exitCode).toBe(1);
    const [, name = ''] = /(run-zfs-test-\w+) is kept/.exec(run.stderr) ?? [];
    expect((await zfsdev('run', 'zfs-test', '--', 'true')).exitCode).toBe(0);
    expect((await zfsdev('exec', name, '--', 'zpool', 'list', '-H', '-o', 'health')).stdout).toBe('ONLINE');
  });

  it('ended by Ctrl-C leaves nothing', async () => {
    const run = zfsdev.begin('run', 'zfs-test', '--count', '2', '--', 'sh', '-c', 'echo begun; sleep 600');
    await run.until('[1] begun');
    await run.until('[2] begun');
    run.kill('SIGINT');
    expect((await run.result).exitCode).toBe(130);
    expect(await readdir(join(zfsdev.home, 'instances'))).toEqual([]);
    expect(await machinesOf(zfsdev.home)).toEqual([]);
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
