import { copyFile, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownHome } from '../support/home.ts';
import { inGuest } from '../support/in-guest.ts';

const zfsdev = ownHome();
const name = 'cloud';
/** Firmware, a kernel with all its mitigations and cloud-init take emulated processors minutes. */
const patience = ['--timeout', '20m'];
let folder: string;
let template: string;

const guest = (...argv: string[]): Promise<string> => inGuest(zfsdev, name, ...argv);

// The image that zfsdev builds for Lima is one for any NoCloud seed; here it is taken for somebody else's.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-cloud-'));
  const build = await zfsdev('image', 'build', '--flavour', 'cloud', '--json');
  expect(build.exitCode).toBe(0);
  const built = JSON.parse(build.stdout.split('\n').at(-1) ?? '') as { folder: string; digest: string };
  await copyFile(join(built.folder, 'disk.qcow2'), join(folder, 'cloud.img'));
  template = join(folder, 'mine.yaml');
  const lines = [
    'description: A machine of a cloud image',
    'cpus: 2',
    'memory: 1GiB',
    'disk: 4GiB',
    'image:',
    '  location: ./cloud.img',
    'pool:',
    '  fileSize: 128MiB',
    'worstCase:',
    '  base: 200MB',
    '',
  ];
  await writeFile(template, lines.join('\n'));
});

afterAll(async () => {
  await zfsdev('delete', '--force', name);
  await rm(folder, { recursive: true, force: true });
});

// One machine goes through its life; each test begins where the one before it ended.
describe('a machine of a cloud image', () => {
  it('is refused a disk that is smaller than the image', async () => {
    const tooSmall = ['--name', name, '--disk', '512MiB'];
    // The first that boots by firmware, which a host that never did so has to install.
    const { exitCode, stderr } = await zfsdev('up', template, ...tooSmall, '--install-deps', '--yes');
    expect(stderr).toContain('a disk of 512MiB is smaller than the image');
    expect(stderr).toContain('next: --disk');
    expect(exitCode).toBe(2);
    expect(await readdir(join(zfsdev.home, 'instances'))).toEqual([]);
  });

  it('comes up as itself, with the pool of its template', async () => {
    const up = await zfsdev('up', template, '--name', name, ...patience);
    expect(up.stderr).not.toMatch(/^error:/m);
    expect(up.exitCode).toBe(0);
    expect(up.stdout).toMatch(/pool: testpool\n\s*state: ONLINE/);
    expect(await guest('hostname')).toBe(name);
    const size = (await guest('df', '--output=size', '-B1', '/')).split('\n')[1];
    expect(Number(size)).toBeGreaterThan(3.5 * 2 ** 30);
    // It is reached with the keys that it was given, and asks for no other.
    expect(await guest('sh', '-c', 'ls /etc/ssh/ssh_host_*_key')).toBe('/etc/ssh/ssh_host_ed25519_key');
    expect(await guest('cat', '/run/zfsdev/provision')).toBe('done');
  });

  it('does what other machines do', async () => {
    expect((await zfsdev('exec', name, '--', 'sh', '-c', 'exit 255')).exitCode).toBe(255);
    const words = ['a b', "it's", '$HOME', ''];
    expect(await guest('printf', '[%s]', ...words)).toBe(words.map((word) => `[${word}]`).join(''));
    await writeFile(join(folder, 'file'), 'there and back');
    expect((await zfsdev('copy', join(folder, 'file'), `${name}:/testpool/`)).exitCode).toBe(0);
    expect((await zfsdev('copy', `${name}:/testpool/file`, join(folder, 'back'))).exitCode).toBe(0);
    expect(await readFile(join(folder, 'back'), 'utf8')).toBe('there and back');
    expect((await zfsdev('clean', name)).exitCode).toBe(0);
    const usage = JSON.parse((await zfsdev('usage', name, '--json')).stdout) as {
      machines: { guest?: { pools: { name: string }[] } }[];
    };
    expect(usage.machines[0]?.guest?.pools.map((pool) => pool.name)).toEqual(['testpool']);
    expect((await zfsdev('warm', 'key', template)).stderr).toContain("can't be saved and forked");
  });

  it('gets the volume manager when it is first asked for', async () => {
    const create = await zfsdev('volume', 'create', name, 'data', '--size', '16MiB');
    expect({ exitCode: create.exitCode, stderr: create.stderr }).toMatchObject({ exitCode: 0 });
    expect(create.stderr).toContain('Bringing the volume manager');
    const list = await zfsdev('volume', 'list', name);
    expect(list.stdout).toMatch(/^data /m);
    // The second time it is there.
    expect(list.stderr).not.toContain('Bringing');
    expect(await guest('zfs', 'list', '-H', '-o', 'name', '-t', 'volume')).toBe('testpool/data');
    expect(await guest('stat', '-c', '%a %U', '/run/zfsdev/zvold.sock')).toBe('600 root');
    expect(await zfsdev('volume', 'delete', name, 'data')).toMatchObject({ exitCode: 0 });
    expect((await zfsdev('volume', 'list', name)).stdout).not.toMatch(/^data /m);
  });

  it('stands on its image, which is not removed under it', async () => {
    const { images } = JSON.parse((await zfsdev('image', 'list', '--json')).stdout) as {
      images: { digest: string; kind?: string; usedBy: string[] }[];
    };
    const pulled = images.find(({ kind }) => kind === 'pulled');
    expect(pulled?.usedBy).toEqual([name]);
    expect((await zfsdev('image', 'remove', pulled?.digest ?? '')).exitCode).toBe(4);
  });

  it('shuts down, is compacted, and has its start fail with the words of a script that fails', async () => {
    const script = '#!/bin/sh\ncat /testpool/file >&2\necho "the moon is in the wrong phase" >&2\nexit 3\n';
    const path = '/etc/zfsdev/provision/99-moon.sh';
    await guest('sh', '-c', `printf %s "$1" >${path} && chmod +x ${path}`, 'sh', script);
    expect((await zfsdev('stop', name, '--timeout', '10m')).exitCode).toBe(0);
    expect((await zfsdev('compact', name)).exitCode).toBe(0);
    const start = await zfsdev('start', name, ...patience);
    expect(start.stderr).toContain(`the provisioning of "${name}" failed`);
    // The pool was imported by the script before, with what was in it.
    expect(start.stderr).toContain('there and back');
    expect(start.stderr).toContain('the moon is in the wrong phase');
    expect(start.stderr).toContain('99-moon.sh ended with exit code 3');
    expect(start.exitCode).toBe(1);
    expect((await zfsdev('list')).stdout).toMatch(new RegExp(`${name}\\s+stopped`));
  });

  it('is gone with every byte after delete', async () => {
    expect((await zfsdev('delete', name)).exitCode).toBe(0);
    expect(await readdir(join(zfsdev.home, 'instances'))).toEqual([]);
  });
});
