import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../src/core/bytes.ts';
import { ownHome, removeAll } from '../support/home.ts';
import { scriptInGuest } from '../support/in-guest.ts';
import { machinesOf } from '../support/machines.ts';
import { done } from '../support/outcome.ts';
import type { Result } from '../support/zfsdev.ts';

const zfsdev = ownHome();
let folder: string;
const onHost = (name: string): string => join(folder, name);

const guide = readFileSync('docs/storage.md', 'utf8');

/** A pattern of the guide. */
function pattern(title: string): string {
  const [, section] = guide.split(`### ${title}\n`);
  return section?.split(/^##/m)[0] ?? '';
}

/** Its storage, in small, with a folder of this test's own. */
function storageOf(title: string): string {
  const [, storage = ''] = /```yaml\nstorage:\n([^`]+)```/.exec(pattern(title)) ?? [];
  return storage.replace(/\b\d+G\b/g, '128M').replace('~/projects', 'projects');
}

/** Its commands, of another machine. */
function commandsOf(title: string, machine: string): string[][] {
  const [, commands = ''] = /```sh\n([^`]+)```/.exec(pattern(title)) ?? [];
  const words = commands
    .trim()
    .split('\n')
    .map((line) => line.replace(/ +#.*/, '').split(' ').slice(1));
  return words
    .filter(([verb]) => verb === 'snapshot')
    .map(([noun = '', verb = '', , ...rest]) => [noun, verb, machine, ...rest]);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-storage-'));
  await mkdir(onHost('projects'));
  await mkdir(onHost('docs'));
  await writeFile(onHost('projects/from-host'), 'of the host\n');
  await writeFile(onHost('docs/page'), 'to be read\n');
  await writeFile(onHost('install.iso'), '');
  await truncate(onHost('install.iso'), MiB);
});
afterAll(async () => {
  await removeAll(zfsdev);
  expect(await machinesOf(zfsdev.home)).toEqual([]);
  await rm(folder, { recursive: true, force: true });
});

async function up(name: string, storage: string): Promise<Result> {
  const file = onHost(`${name}.yaml`);
  const head = `description: a pattern of the guide
cpus: 2
memory: 1GiB
disk: 3GiB
worstCase: { base: 1.5GB, packages: 200MB, headroom: 500MB }
storage:
`;
  await writeFile(file, head + storage);
  return done(zfsdev('up', file));
}

describe('a machine with several disks, a share, and snapshots of the set', () => {
  const name = 'multi';
  const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);
  const snapshot = (verb: string, ...args: string[]): Promise<Result> =>
    zfsdev('snapshot', verb, name, ...args);

  beforeAll(async () => {
    await up(
      name,
      `${storageOf('Several disks')}${storageOf('A workspace, and a state to go back to')}
${storageOf('Several states').replace('name: system', 'name: states')}
  - { name: docs, type: virtfs, path: docs, readonly: true, mount_at: /srv/docs }
  # Every other interface
  - { name: onsata, type: qcow2, size: 64M, interface: sata }
  - { name: onide, type: qcow2, size: 64M, interface: ide }
  - { name: onscsi, type: qcow2, size: 64M, interface: scsi }
  - { name: nowhere, type: qcow2, size: 64M, interface: none }
  - { name: install, type: raw, file: install.iso, media: cdrom }
`,
    );
    // On two qcow2 of the set, and beside it on the raw disk and on ext4.
    await guest(`set -e
      zpool create -O compression=off -m /apps apps mirror /dev/disk/by-id/virtio-apps /dev/disk/by-id/virtio-logs
      head -c 1M /dev/urandom >/root/of-database
      dd if=/root/of-database of=/dev/disk/by-id/virtio-database bs=1M conv=fsync status=none`);
  });

  /** Random data in the pool and on ext4, in a state that is told from others. */
  const write = (state: string): Promise<string> =>
    guest(`for at in /root /apps; do head -c 8M /dev/urandom >$at/data; echo ${state} >$at/state; done
      sha256sum /root/data /apps/data /root/state /apps/state >/root/${state}.sum`);

  /** Spoils it, so that only a load can bring it back. */
  const spoil = (): Promise<string> =>
    guest('rm /apps/state; echo x >>/apps/data; echo x >>/root/data; echo x >/root/state; sync; zpool sync');

  async function expectState(state: string): Promise<void> {
    const script = `zpool list apps >/dev/null 2>&1 || zpool import -f -d /dev/disk/by-id apps
      sha256sum -c --quiet /root/${state}.sum && zpool scrub -w apps && zpool status -x apps`;
    expect(await guest(script)).toBe("pool 'apps' is healthy");
    expect(await guest('zpool status apps')).toMatch(/errors: No known data errors/);
  }

  async function names(): Promise<string[]> {
    const { stdout } = await done(snapshot('list', '--json'));
    return (JSON.parse(stdout) as { snapshots: { name: string }[] }).snapshots.map((each) => each.name);
  }

  it('has made what was missing, for its owner alone', async () => {
    const own = join(zfsdev.home, 'instances', name, 'disks');
    for (const file of [onHost('vms/dev-system.qcow2'), join(own, 'boot.qcow2'), join(own, 'database.raw')])
      expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it('shows its disks to the guest by every interface, the root disk first', async () => {
    const seen = await guest('ls /dev/disk/by-id');
    for (const disk of ['boot', 'apps', 'database', 'logs']) expect(seen).toContain(`virtio-${disk}`);
    for (const disk of ['onsata', 'onide', 'onscsi']) expect(seen).toMatch(new RegExp(`_${disk}$`, 'm'));
    expect(seen).not.toContain('nowhere');
    expect(await guest('findmnt -no SOURCE /')).toMatch(/vda|root/);
    expect(await guest('cat /sys/block/vda/serial')).toBe('zfsdev-root');
    expect(await guest('ls /sys/block')).toMatch(/\bsr0\b/);
    // Each of them takes what is written, too.
    await guest(`set -e; for disk in onsata onide onscsi; do
      at=$(ls /dev/disk/by-id/*_$disk)
      head -c 1M /root/of-database | dd of=$at bs=64k conv=fsync status=none
      head -c 1M $at | cmp - /root/of-database
    done`);
  });

  describe('pattern 1: a workspace, and a state to go back to', () => {
    it('sees the folder of the host, and the host what the guest writes', async () => {
      expect(await guest('cat /mnt/workspace/from-host')).toBe('of the host');
      await guest('echo of the guest >/mnt/workspace/from-guest');
      expect(await readFile(onHost('projects/from-guest'), 'utf8')).toBe('of the guest\n');
    });

    it('can be kept from writing, by the host', async () => {
      expect(await guest('cat /srv/docs/page')).toBe('to be read');
      const { exitCode } = await zfsdev(
        ...['exec', name, '--', 'sh', '-c', 'mount -o remount,rw /srv/docs; echo x >/srv/docs/page'],
      );
      expect(exitCode).not.toBe(0);
      expect(await readFile(onHost('docs/page'), 'utf8')).toBe('to be read\n');
    });

    it('is mounted by hand as the guide has it, where it is not mounted', async () => {
      const [, command = ''] = /^zfsdev exec mine -- (mount -t 9p .*)$/m.exec(guide) ?? [];
      await guest('umount /mnt/workspace');
      expect(await guest('findmnt -t 9p,virtiofs')).not.toContain('/mnt/workspace');
      await guest(command);
      expect(await guest('findmnt -t 9p,virtiofs')).toContain('/mnt/workspace');
      expect(await guest('cat /mnt/workspace/from-host')).toBe('of the host');
    });

    it('has no memory saved beside a raw disk and a share, and says so before anything begins', async () => {
      const refused = await snapshot('create', 'whole', '--live', '--memory');
      expect(refused.exitCode).toBe(4);
      expect(refused.stderr).toContain('its disk "database" is raw');
      expect(refused.stderr).toContain(`zfsdev snapshot create ${name} whole --live`);
      expect(await names()).toEqual([]);
    });
  });

  it('pattern 1: goes back to before a test, and what it left in the workspace stays', async () => {
    const [take = [], goBack = []] = commandsOf('A workspace, and a state to go back to', name);
    await write('before-test');
    await done(zfsdev(...take));
    await spoil();
    await guest('echo of the test >/mnt/workspace/result');
    await done(zfsdev(...goBack));
    await expectState('before-test');
    expect(await guest('cat /mnt/workspace/result')).toBe('of the test');
    await done(snapshot('delete', 'before-test'));
  });

  describe('patterns 3 and 4: several states of a set of disks', () => {
    const [takeClean = [], takeScenario = [], goBack = [], drop = []] = commandsOf('Several states', name);

    it('are taken while it runs, beside a raw disk and a share, which are named', async () => {
      await write('clean-install');
      const taken = await done(zfsdev(...takeClean));
      expect(taken.stderr).toMatch(/left out.*database, workspace, docs, install/);
      const refused = await snapshot('create', 'raw', '--live', '--disk', 'database');
      expect(refused.exitCode).toBe(4);
      expect(refused.stderr).toContain('"database" of "multi" can\'t hold snapshots');
      await write('scenario-1');
      await done(zfsdev(...takeScenario));
      expect(await names()).toEqual(['clean-install', 'scenario-1']);
    });

    it('come back whole, pool and ext4, and the raw disk and the share stay as they are', async () => {
      await spoil();
      await done(zfsdev(...goBack));
      await expectState('clean-install');
      const database = 'head -c 1M /dev/disk/by-id/virtio-database | cmp - /root/of-database';
      await guest(database);
      expect(await guest('cat /mnt/workspace/from-guest')).toBe('of the guest');
      await spoil();
      await done(snapshot('load', 'scenario-1', '--restart'));
      await expectState('scenario-1');
      await guest(database);
    });

    it('are deleted one by one, while it runs', async () => {
      await done(zfsdev(...drop));
      await done(snapshot('delete', 'clean-install'));
      expect(await names()).toEqual([]);
      await expectState('scenario-1');
    });
  });

  it('leaves the file that its template names when it is deleted, and nothing else', async () => {
    const deleted = await done(zfsdev('delete', '--force', name));
    expect(deleted.stderr + deleted.stdout).toContain(onHost('vms/dev-system.qcow2'));
    expect(existsSync(onHost('vms/dev-system.qcow2'))).toBe(true);
    expect(existsSync(join(zfsdev.home, 'instances', name))).toBe(false);
  });
});

describe('pattern 2: raw disks', () => {
  const name = 'prod';
  /** Tells that the pool is whole, and what its file holds. */
  const wholeData = `zpool list data >/dev/null 2>&1 || zpool import -f -d /dev/disk/by-id data
    zpool scrub -w data && zpool status -x data && sha256sum /data/file`;

  it('are made, written to, and keep it over a power cut; a snapshot is of the root disk alone', async () => {
    await up(name, storageOf('Raw disks'));
    expect((await stat(onHost('vms/prod-data.raw'))).size).toBe(128 * MiB);
    const taken = await done(zfsdev('snapshot', 'create', name, 'one', '--live'));
    expect(taken.stderr).toContain('system, data');
    const sum = await scriptInGuest(
      zfsdev,
      name,
      `zpool create -m /data data /dev/disk/by-id/virtio-data && head -c 8M /dev/urandom >/data/file &&
       zpool sync && sha256sum /data/file`,
    );
    await done(zfsdev('stop', '--force', name));
    await done(zfsdev('start', name));
    expect(await scriptInGuest(zfsdev, name, wholeData)).toBe(`pool 'data' is healthy\n${sum}`);
  });

  it('stay as they are when the root disk goes back', async () => {
    const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);
    const before = await guest('head -c 8M /dev/urandom >/root/file && sha256sum /root/file');
    await done(zfsdev('snapshot', 'create', name, 'two', '--live'));
    const sum = await guest(`rm /root/file && head -c 8M /dev/urandom >/data/file && zpool sync && sync &&
      sha256sum /data/file`);
    await done(zfsdev('snapshot', 'load', name, 'two', '--restart'));
    expect(await guest('sha256sum /root/file')).toBe(before);
    expect(await guest(wholeData)).toBe(`pool 'data' is healthy\n${sum}`);
  });

  it("are nobody else's as long as the machine is there", async () => {
    const other = onHost('other.yaml');
    const text = await readFile(onHost('prod.yaml'), 'utf8');
    await writeFile(other, text);
    const refused = await zfsdev('up', other);
    expect(refused.exitCode).toBe(4);
    expect(refused.stderr).toContain('it is in use as the disk "system" of "prod"');
    expect(existsSync(join(zfsdev.home, 'instances', 'other'))).toBe(false);
  });
});
