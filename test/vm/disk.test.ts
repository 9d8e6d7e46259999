import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ownHome } from '../support/home.ts';
import { lifeOf } from '../support/life.ts';
import { done } from '../support/outcome.ts';
import type { Result } from '../support/zfsdev.ts';

const zfsdev = ownHome();
const name = 'disks';
const { guest, onHost } = lifeOf(zfsdev, name);
const own = (file: string): string => join(zfsdev.home, 'instances', name, 'disks', file);
const device = '/dev/disk/by-id/virtio-data';

const disk = (verb: string, ...args: string[]): Promise<Result> => zfsdev('disk', verb, name, ...args);
const snapshot = (verb: string, ...args: string[]): Promise<Result> =>
  zfsdev('snapshot', verb, name, ...args);

interface Listed {
  readonly name: string;
  readonly plugged: boolean | null;
  readonly virtualBytes: number;
}

async function listed(): Promise<Listed[]> {
  const { stdout } = await done(disk('list', '--json'));
  return (JSON.parse(stdout.split('\n').at(-1) ?? '') as { disks: Listed[] }).disks;
}

const script = (text: string): Promise<string> => guest('sh', '-ec', text);
/** The guest's own devices settle a moment after QEMU has them. */
const settled = (state: 'there' | 'gone'): Promise<string> =>
  script(
    `for _ in $(seq 600); do udevadm settle; if [ -e ${device} ]; then s=there; else s=gone; fi; [ $s != ${state} ] || exit 0; sleep 0.1; done; exit 1`,
  );
const identical = (a: string, b: string): string =>
  spawnSync('qemu-img', ['compare', a, b], { encoding: 'utf8' }).stdout;

let sum = '';

// One machine goes through all of it; each test begins where the one before it ended.
describe('a disk of a forked machine', () => {
  it('is plugged in while it runs, and can be written to', async () => {
    await done(zfsdev('up', 'zfs-test', '--name', name));
    await done(disk('add', 'data', '--size', '64MiB'));
    await settled('there');
    await script(`mkfs.ext4 -q ${device}; mkdir -p /mnt/data; mount ${device} /mnt/data`);
    await script('head -c 8M /dev/urandom >/mnt/data/file; sync');
    sum = await script('sha256sum </mnt/data/file');
    expect(await listed()).toMatchObject([{ name: 'root' }, { name: 'data', plugged: true }]);
  });

  it('grows while it is mounted', async () => {
    await done(disk('resize', 'data', '128MiB'));
    await script(`resize2fs ${device} >/dev/null 2>&1`);
    expect(Number(await script(`blockdev --getsize64 ${device}`))).toBe(128 * 2 ** 20);
    expect(Number(await script('df -B1 --output=size /mnt/data | tail -n 1'))).toBeGreaterThan(96 * 2 ** 20);
    expect(await script('sha256sum </mnt/data/file')).toBe(sum);
    const smaller = await disk('resize', 'data', '64MiB');
    expect(smaller).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('only grow') as string });
  });

  it('is part of a set that is taken live', async () => {
    const { stdout } = await done(snapshot('create', 'both', '--live'));
    expect(stdout).toContain('root, data');
  });

  it('that is in use is not let go of in silence, and goes and comes back with what is on it', async () => {
    for (const verb of ['detach', 'remove']) {
      const refused = await disk(verb, 'data', ...(verb === 'remove' ? ['--yes'] : []));
      expect(refused.stderr).toContain('"data" is in use in');
      expect(refused.stderr).toContain('it is mounted at /mnt/data');
      expect(refused.exitCode).toBe(4);
    }
    expect(await script('sha256sum </mnt/data/file')).toBe(sum);
    await script('umount /mnt/data');
    await done(disk('detach', 'data'));
    await settled('gone');
    expect(await listed()).toMatchObject([{ name: 'root' }, { name: 'data', plugged: false }]);
    await done(disk('attach', 'data'));
    await settled('there');
    await script(`mount ${device} /mnt/data`);
    expect(await script('sha256sum </mnt/data/file')).toBe(sum);
  });

  it('is in its place after a stop and a start, and goes back with the set', async () => {
    await script('rm /mnt/data/file; sync');
    await done(snapshot('load', 'both', '--restart'));
    await settled('there');
    await script(`mkdir -p /mnt/data; mount ${device} /mnt/data`);
    expect(await script('sha256sum </mnt/data/file')).toBe(sum);
  });

  it('fits saved memory of its time, and memory of before it came does not', async () => {
    await done(snapshot('create', 'with', '--memory'));
    await script('echo changed >/mnt/data/file; sync');
    await done(snapshot('load', 'with'));
    expect(await script('sha256sum </mnt/data/file')).toBe(sum);
    await done(disk('add', 'more', '--size', '16MiB'));
    const refused = await snapshot('load', 'with');
    expect(refused.exitCode).toBe(4);
    expect(refused.stderr).toContain('--no-memory');
    await done(disk('remove', 'more', '--yes'));
    await done(snapshot('load', 'with'));
    for (const each of ['with', 'both']) await done(snapshot('delete', each));
  });

  it('is changed to raw and back while the machine is stopped, the same each time', async () => {
    await script('umount /mnt/data');
    await done(zfsdev('stop', name));
    const copy = onHost('copy.qcow2');
    await done(zfsdev('disk', 'convert', own('data.qcow2'), copy));
    expect(identical(copy, own('data.qcow2'))).toContain('identical');
    await done(disk('change', 'data', '--type', 'raw'));
    expect(identical(copy, own('data.raw'))).toContain('identical');
    await done(disk('change', 'data', '--type', 'qcow2'));
    expect(identical(copy, own('data.qcow2'))).toContain('identical');
    await done(disk('resize', 'root', '5GiB'));
    // By the template's name: what `disk` has changed makes it no other machine.
    await done(zfsdev('up', 'zfs-test', '--name', name));
    await settled('there');
    await script(`mount ${device} /mnt/data`);
    expect(await script('sha256sum </mnt/data/file')).toBe(sum);
    expect(Number(await script('df -B1 --output=size / | tail -n 1'))).toBeGreaterThan(4.5 * 2 ** 30);
  });

  it('is removed from the running machine, file and all', async () => {
    await script('umount /mnt/data');
    await done(disk('remove', 'data', '--yes'));
    await settled('gone');
    expect(await listed()).toMatchObject([{ name: 'root' }]);
    expect(spawnSync('ls', [own('')], { encoding: 'utf8' }).stdout).toBe('');
  });
});
