import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownHome, removeAll } from '../support/home.ts';
import { scriptInGuest } from '../support/in-guest.ts';
import { done } from '../support/outcome.ts';
import { type Result } from '../support/zfsdev.ts';

const zfsdev = ownHome();
const name = 'snap';
const instance = join(zfsdev.home, 'instances', name);
const disk = join(instance, 'disk.qcow2');
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-export-'));
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
});
afterAll(async () => {
  await removeAll(zfsdev);
  await rm(folder, { recursive: true, force: true });
});

const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);

function snapshot(verb: string, ...args: string[]): Promise<Result> {
  return zfsdev('snapshot', verb, name, ...args);
}

interface Listed {
  readonly name: string;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly aloneBytes: number;
  readonly description?: string;
}

async function listed(): Promise<Listed[]> {
  const { stdout } = await done(snapshot('list', '--json'));
  return (JSON.parse(stdout) as { snapshots: Listed[] }).snapshots;
}

const names = async (): Promise<string[]> => (await listed()).map((each) => each.name);

/** What is to come back: random data in the pool and on ext4, in a state that is told from others. */
async function write(state: string): Promise<void> {
  await guest(`for at in /root /testpool; do head -c 8M /dev/urandom >$at/data; echo ${state} >$at/state; done
    sha256sum /root/data /testpool/data /root/state /testpool/state >/root/${state}.sum`);
}

/** Spoils it, so that only a load can bring it back. */
const spoil = (): Promise<string> =>
  guest(
    'rm /testpool/state; echo x >>/testpool/data; echo x >>/root/data; echo x >/root/state; sync; zpool sync',
  );

async function expectState(state: string): Promise<void> {
  const check = `sha256sum -c --quiet /root/${state}.sum && zpool scrub -w testpool && zpool status -x testpool`;
  expect(await guest(check)).toContain('is healthy');
  const errors = await guest('zpool status -p testpool | grep -c "with 0 errors"');
  expect(errors).toBe('1');
}

async function boot(): Promise<{ id: string; uptime: number; clock: number }> {
  const before = Date.now();
  const text = await guest('cat /proc/sys/kernel/random/boot_id /proc/uptime; date +%s%3N');
  const [id = '', uptime = '', time = ''] = text.split('\n');
  // By how many milliseconds it is beside the span in which it was asked.
  const clock = Math.max(0, before - Number(time), Number(time) - Date.now());
  return { id, uptime: Number(uptime.split(' ')[0]), clock };
}

const check = (): string => spawnSync('qemu-img', ['check', disk], { encoding: 'utf8' }).stdout;
const qemu = async (): Promise<number> => Number(await readFile(join(instance, 'qemu.pid'), 'utf8'));

// One machine goes through all of it; each test begins where the one before it ended.
describe('snapshots of a machine', () => {
  it('are refused where the machine is in the wrong state, with both ways out', async () => {
    const refused = await snapshot('create', 'one');
    expect(refused.exitCode).toBe(4);
    expect(refused.stderr).toContain(`zfsdev stop ${name} && zfsdev snapshot create ${name} one\n`);
    expect(refused.stderr).toContain(`zfsdev snapshot create ${name} one --live`);
    expect(await listed()).toEqual([]);
  });

  it('with memory are gone back to without a boot: a fork goes on from that moment, with the time of now', async () => {
    await write('memory');
    await guest('nohup sh -c "while sleep 0.2; do echo >>/run/ticks; done" >/dev/null 2>&1 &');
    const before = await boot();
    // A name that takes parsers of QEMU's words for people apart.
    await done(snapshot('create', 'is', '--memory', '--description', 'before "it" all'));
    expect((await boot()).clock).toBeLessThan(1500);
    expect(await listed()).toMatchObject([{ name: 'is', description: 'before "it" all' }]);
    expect((await listed())[0]?.memoryBytes).toBeGreaterThan(50 * 2 ** 20);
    await spoil();
    const loaded = await done(snapshot('load', 'is', '--json'));
    expect(JSON.parse(loaded.stdout.split('\n').at(-1) ?? '')).toMatchObject({ machine: 'resumed' });
    const after = await boot();
    expect(after.id).toBe(before.id);
    expect(after.uptime).toBeGreaterThan(before.uptime);
    expect(after.clock).toBeLessThan(1500);
    const [first, second] = (await guest('wc -c </run/ticks; sleep 1; wc -c </run/ticks')).split('\n');
    expect(Number(second)).toBeGreaterThan(Number(first));
    await expectState('memory');
  });

  it('of the disks of a running machine are gone back to by a restart, which is done only if told', async () => {
    await write('live');
    const odd = `ünï "c" ${'x'.repeat(245)}`;
    await done(snapshot('create', odd, '--live'));
    expect(Buffer.byteLength(odd)).toBe(255);
    expect(await names()).toEqual(['is', odd]);
    const twice = await snapshot('create', odd, '--live');
    expect(twice).toMatchObject({ exitCode: 4, stderr: expect.stringContaining('already') as string });
    await spoil();
    const refused = await snapshot('load', odd);
    expect(refused.exitCode).toBe(4);
    expect(refused.stderr).toContain('--restart');
    expect(refused.stderr).toContain(`zfsdev stop ${name} && `);
    await done(snapshot('load', odd, '--restart'));
    await expectState('live');
    await done(snapshot('delete', odd));
    expect(await names()).toEqual(['is']);
  });

  it('are written to a file of their own while it runs, with a checksum', async () => {
    await done(snapshot('export', 'is', '--output', folder));
    const file = `${name}-is.qcow2`;
    const sum = spawnSync('sha256sum', ['-c', `${file}.sha256`], { cwd: folder, encoding: 'utf8' });
    expect(sum.stdout).toContain(`${file}: OK`);
    const info = spawnSync('qemu-img', ['info', '--output=json', join(folder, file)], { encoding: 'utf8' });
    expect(JSON.parse(info.stdout)).not.toHaveProperty('backing-filename');
    expect(await snapshot('export', 'is', '--output', folder)).toMatchObject({ exitCode: 4 });
  });

  it('are one at a time, seen by a list meanwhile, and gone without a trace after Ctrl-C', async () => {
    await write('interrupted');
    const create = zfsdev.begin('snapshot', 'create', name, 'cut off', '--memory');
    await create.until('Saving the memory');
    const other = await snapshot('create', 'other', '--live');
    expect(other).toMatchObject({ exitCode: 4, stderr: expect.stringContaining('another zfsdev') as string });
    expect(await names()).toEqual(['is']);
    create.kill('SIGINT');
    expect((await create.result).exitCode).toBe(130);
    expect(await names()).toEqual(['is']);
    expect((await boot()).clock).toBeLessThan(1500);
    await expectState('interrupted');
  });

  it('leave nothing behind if QEMU is killed in the middle, and memory brings a stopped machine back without a boot', async () => {
    const create = zfsdev.begin('snapshot', 'create', name, 'killed', '--memory');
    await create.until('Saving the memory');
    process.kill(await qemu(), 'SIGKILL');
    const killed = await create.result;
    expect(killed.stderr).toContain(`"${name}" died while its snapshot was taken`);
    expect(killed.exitCode).toBe(1);
    expect(await names()).toEqual(['is']);
    expect(check()).toContain('No errors');
    const refused = await snapshot('create', 'x', '--live');
    expect(refused.exitCode).toBe(4);
    expect(refused.stderr).toContain(`zfsdev start ${name} && zfsdev snapshot create ${name} x --live`);

    await done(snapshot('load', 'is'));
    expect(Number(await guest('wc -c </run/ticks'))).toBeGreaterThan(0);
    expect((await boot()).clock).toBeLessThan(1500);
    await expectState('memory');
  });

  it('are deleted while it runs, and give the room back: that of memory it was taken back to when it is stopped', async () => {
    const [held] = await listed();
    const before = (await stat(disk)).blocks * 512;
    await done(snapshot('delete', 'is'));
    expect(await listed()).toEqual([]);
    await done(zfsdev('stop', '--force', name));
    const after = (await stat(disk)).blocks * 512;
    expect(after).toBeLessThan(before - 0.8 * (held?.memoryBytes ?? Infinity));
    expect(check()).toContain('No errors');
  });
});
