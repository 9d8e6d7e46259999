import { mkdir, mkdtemp, readdir, rm, symlink, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, afterAll, describe, expect, it } from 'vitest';
import { ownHome, removeAll } from '../support/home.ts';
import { machinesOf } from '../support/machines.ts';
import { shell, type Result } from '../support/zfsdev.ts';

const zfsdev = ownHome();
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-faults-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

afterEach(() => removeAll(zfsdev));

async function expectNothingLeft(name: string): Promise<void> {
  expect(await readdir(join(zfsdev.home, 'instances'))).not.toContain(name);
  expect(await machinesOf(zfsdev.home)).toEqual([]);
}

describe('an interrupted up', () => {
  it.each([
    ['SIGINT', 'Checking the disk space'],
    ['SIGTERM', 'Creating its disk'],
    ['SIGINT', 'Booting'],
    ['SIGTERM', 'Waiting for the command channel'],
  ] as const)('by %s at "%s" undoes all and exits 130', async (signal, step) => {
    const up = zfsdev.begin('up', 'zfs-test', '--cold', '--name', 'cut');
    await up.until(step);
    up.kill(signal);
    const { exitCode, stderr } = await up.result;
    expect(stderr).toContain('interrupted');
    expect(exitCode).toBe(130);
    await expectNothingLeft('cut');
  });

  it('by kill -9 while the machine boots is listed as broken; delete cleans up', async () => {
    const up = zfsdev.begin('up', 'zfs-test', '--cold', '--name', 'killed');
    await up.until('Booting');
    up.kill('SIGKILL');
    await up.result;
    const list = await zfsdev('list');
    expect(list.stdout).toMatch(/killed\s+broken/);
    expect(list.stdout).toContain('start was interrupted');
    expect((await zfsdev('delete', 'killed')).exitCode).toBe(0);
    await expectNothingLeft('killed');
  });

  it('by kill -9 while the machine boots is mended by another up', async () => {
    const up = zfsdev.begin('up', 'zfs-test', '--cold', '--name', 'killed');
    await up.until('Booting');
    up.kill('SIGKILL');
    await up.result;
    const again = await zfsdev('up', 'killed');
    expect(again.stdout).toContain('state: ONLINE');
    expect(again.exitCode).toBe(0);
  });

  it('by kill -9 before its disk is there is made anew by another up', async () => {
    const up = zfsdev.begin('up', 'zfs-test', '--cold', '--name', 'killed', '--json');
    await up.until('"step":"disk"');
    up.kill('SIGKILL');
    await up.result;
    const again = await zfsdev('up', 'zfs-test', '--name', 'killed');
    expect(again.exitCode).toBe(0);
  });
});

describe('two at once', () => {
  it('of one name: one makes it, the other is told who is at it', async () => {
    const both = await Promise.all([
      zfsdev('up', 'zfs-test', '--name', 'twin'),
      zfsdev('up', 'zfs-test', '--name', 'twin'),
    ]);
    const byCode = (code: number): Result | undefined => both.find(({ exitCode }) => exitCode === code);
    expect(byCode(0)?.stdout).toContain('state: ONLINE');
    expect(byCode(4)?.stderr).toContain('is being changed by another zfsdev');
  });

  it('ten of different names all come up', async () => {
    const names = Array.from({ length: 10 }, (_, i) => `many-${i}`);
    const all = await Promise.all(
      names.map((name) => zfsdev('up', 'zfs-test', '--name', name, '--timeout', '20m', '--overcommit')),
    );
    for (const { exitCode, stderr } of all) expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
    const { instances } = JSON.parse((await zfsdev('list', '--json')).stdout) as {
      instances: { status: string; sshPort: number }[];
    };
    expect(instances.map(({ status }) => status)).toEqual(names.map(() => 'running'));
    expect(new Set(instances.map(({ sshPort }) => sshPort)).size).toBe(10);
  });
});

describe('a machine that does not come up', () => {
  it('panics: the console is shown, and it is stopped as it was before', async () => {
    expect((await zfsdev('up', 'zfs-test', '--name', 'panic')).exitCode).toBe(0);
    await zfsdev('stop', '--force', 'panic');
    await truncate(join(zfsdev.home, 'instances', 'panic', 'initrd'), 0);
    const start = await zfsdev('start', 'panic');
    expect(start.stderr).toContain('its console ends with');
    expect(start.stderr).toContain('Kernel panic');
    expect(start.exitCode).toBe(1);
    expect((await zfsdev('list')).stdout).toMatch(/panic\s+stopped/);
    expect(await machinesOf(zfsdev.home)).toEqual([]);
  });

  it('never gets ready: the deadline ends it, and the console is shown', async () => {
    const up = await zfsdev('up', 'zfs-test', '--name', 'slow', '--cold', '--timeout', '3s');
    expect(up.stderr).toContain('took more than 3 s');
    expect(up.stderr).toContain('console');
    expect(up.exitCode).toBe(124);
    await expectNothingLeft('slow');
  });

  it("dies at start: QEMU's own words are shown", async () => {
    const up = await zfsdev('up', 'zfs-test', '--name', 'kvm', '--cold', '--accel', 'hvf');
    expect(up.stderr).toContain('QEMU did not start "kvm"');
    expect(up.stderr).toContain('hvf');
    expect(up.exitCode).toBe(1);
    await expectNothingLeft('kvm');
  });

  it('has lost its disk or its image: it is broken, and says why', async () => {
    expect((await zfsdev('up', 'zfs-test', '--name', 'lost')).exitCode).toBe(0);
    await zfsdev('stop', '--force', 'lost');
    await truncate(join(zfsdev.home, 'instances', 'lost', 'disk.qcow2'), 0);
    const start = await zfsdev('start', 'lost');
    expect(start.stderr).toContain('QEMU did not start "lost"');
    expect(start.exitCode).toBe(1);
    await rm(join(zfsdev.home, 'instances', 'lost', 'disk.qcow2'));
    expect((await zfsdev('list')).stdout).toContain('its disk is missing');
    expect((await zfsdev('delete', 'lost')).exitCode).toBe(0);
  });
});

describe('a state home on a path with spaces, commas and quotes', () => {
  it('works', async () => {
    // The images are reached through a link, so that nothing is built twice.
    const odd = join(folder, "a b,c'd=%e");
    await mkdir(odd);
    await symlink(join(zfsdev.home, 'images'), join(odd, 'images'));
    const there = shell(odd);
    try {
      const up = await there('up', 'zfs-test', '--name', 'odd');
      expect(up.stderr).not.toMatch(/^error:/m);
      expect(up.stdout).toContain('state: ONLINE');
      expect((await there('exec', 'odd', '--', 'hostname')).stdout).toBe('odd');
    } finally {
      await there('delete', '--force', 'odd');
    }
  });
});
