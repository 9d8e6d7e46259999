import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ownHome } from '../support/home.ts';
import { lifeOf } from '../support/life.ts';

const zfsdev = ownHome();
const name = 'life';
const { onHost, guest } = lifeOf(zfsdev, name);

// One machine goes through its life; each test begins where the one before it ended.
describe('a machine, booted from the image, from the first up to delete', () => {
  it('comes up with a mirrored pool that the guest itself calls ONLINE', async () => {
    const up = await zfsdev('up', 'zfs-test', '--cold', '--name', name);
    expect(up.stderr).not.toContain('warning');
    expect(up.exitCode).toBe(0);
    expect(up.stdout).toMatch(/pool: testpool\n\s*state: ONLINE/);

    const status = await guest('zpool', 'status', 'testpool');
    expect(status).toMatch(/mirror-0\s+ONLINE/);
    expect(status.match(/loop\d+\s+ONLINE/g)).toHaveLength(2);
  });

  it('has the pool that the template describes', async () => {
    expect(await guest('zpool', 'get', '-Hp', '-o', 'value', 'ashift,autotrim', 'testpool')).toBe('12\non');
    const properties = await guest(
      'zfs',
      'get',
      '-Hp',
      '-o',
      'property,value',
      'compression,xattr,atime,quota',
      'testpool',
    );
    expect(properties.split('\n').sort()).toEqual([
      'atime\toff',
      'compression\tlz4',
      `quota\t${200 * 2 ** 20}`,
      // In OpenZFS 2.3 sa and on are one value, and on is the name it prints.
      'xattr\ton',
    ]);
    expect(await guest('stat', '-c', '%s', '/zfs-disks/disk1.img')).toBe(String(256 * 2 ** 20));
  });

  it('has the cpus, memory and disk that the template asks for', async () => {
    expect(await guest('nproc')).toBe('2');
    expect(Number(await guest('awk', '/MemTotal/ {print $2}', '/proc/meminfo'))).toBeGreaterThan(
      1.8 * 2 ** 20,
    );
    const rootSize = Number(
      await guest('df', '--output=size', '-B1', '/').then((text) => text.split('\n')[1]),
    );
    expect(rootSize).toBeGreaterThan(3.5 * 2 ** 30);
  });

  it('is its own machine', async () => {
    expect(await guest('hostname')).toBe(name);
    expect(await guest('cat', '/etc/machine-id')).toMatch(/^[0-9a-f]{32}$/);
    expect((await guest('hostid')).length).toBe(8);
  });

  it('makes device nodes for zvols', async () => {
    await guest('zfs', 'create', '-s', '-V', '64M', 'testpool/vol');
    await guest('udevadm', 'settle', '--timeout=60');
    expect(await guest('blockdev', '--getsize64', '/dev/zvol/testpool/vol')).toBe(String(64 * 2 ** 20));
    await guest('zfs', 'destroy', 'testpool/vol');
  });

  it('passes exit codes and arguments through', async () => {
    expect((await zfsdev('exec', name, '--', 'sh', '-c', 'exit 7')).exitCode).toBe(7);
    expect((await zfsdev('exec', name, '--', 'sh', '-c', 'exit 255')).exitCode).toBe(255);
    const words = ['a b', "it's", '$HOME', '*', '"', '\\', '', 'ünï', 'new\nline'];
    expect(await guest('printf', '[%s]', ...words)).toBe(words.map((word) => `[${word}]`).join(''));
    expect((await zfsdev('exec', name, '--', 'no-such-command')).exitCode).toBe(127);
  });

  it('copies files and folders both ways', async () => {
    const tree = onHost('a tree');
    await mkdir(join(tree, 'inner'), { recursive: true });
    const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 256));
    await writeFile(join(tree, 'inner', 'data.bin'), content);
    expect((await zfsdev('copy', tree, `${name}:/root/`)).exitCode).toBe(0);
    const sum = await guest('sha256sum', '/root/a tree/inner/data.bin');
    expect(sum.split(' ')[0]).toBe(createHash('sha256').update(content).digest('hex'));
    expect((await zfsdev('copy', `${name}:/root/a tree`, onHost('back'))).exitCode).toBe(0);
    expect(await readFile(join(onHost('back'), 'inner', 'data.bin'))).toEqual(content);
  });

  it('says so and exits 0 when it runs already, and can be inspected', async () => {
    const again = await zfsdev('up', 'zfs-test', '--name', name);
    expect(again).toMatchObject({ exitCode: 0 });
    expect(again.stdout).toContain('is running already');
    const { stdout } = await zfsdev('inspect', name, '--json');
    expect(JSON.parse(stdout)).toMatchObject({ name, status: 'running', spec: { cpus: 2 } });
    expect(await zfsdev('logs', name)).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/./) as string,
    });
  });

  it('refuses to delete a running or a protected machine', async () => {
    expect(await zfsdev('delete', name)).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining('is running') as string,
    });
    await zfsdev('protect', name);
    const refused = await zfsdev('delete', '--force', name);
    expect(refused).toMatchObject({
      exitCode: 4,
      stderr: expect.stringContaining(`zfsdev unprotect ${name}`) as string,
    });
    await zfsdev('unprotect', name);
  });

  it('keeps the pool and a file in it over stop and start', async () => {
    await guest('sh', '-c', 'echo kept > /testpool/file && zpool sync testpool');
    const guid = await guest('zpool', 'get', '-H', '-o', 'value', 'guid', 'testpool');
    expect((await zfsdev('stop', name)).exitCode).toBe(0);
    const list = await zfsdev('list');
    expect(list).toMatchObject({ exitCode: 0, stderr: '' });
    expect(list.stdout).toMatch(new RegExp(`${name}\\s+stopped`));
    const start = await zfsdev('start', name);
    expect(start.stderr).not.toMatch(/^error:/m);
    expect(start.exitCode).toBe(0);
    expect(await guest('cat', '/testpool/file')).toBe('kept');
    expect(await guest('zpool', 'get', '-H', '-o', 'value', 'guid', 'testpool')).toBe(guid);
  });

  it('keeps the pool over a power cut', async () => {
    await guest('sh', '-c', 'echo "after the cut" > /testpool/second && zpool sync testpool');
    expect((await zfsdev('stop', '--force', name)).exitCode).toBe(0);
    expect((await zfsdev('up', name)).exitCode).toBe(0);
    expect(await guest('cat', '/testpool/file', '/testpool/second')).toBe('kept\nafter the cut');
    expect(await guest('zpool', 'status', '-x', 'testpool')).toContain('is healthy');
  });

  it('is gone with every byte after delete', async () => {
    expect((await zfsdev('delete', '--force', name)).exitCode).toBe(0);
    expect(await readdir(join(zfsdev.home, 'instances'))).toEqual([]);
    expect(JSON.parse((await zfsdev('list', '--json')).stdout)).toEqual({ instances: [] });
    expect((await zfsdev('exec', name, '--', 'true')).exitCode).toBe(125);
  });
});
