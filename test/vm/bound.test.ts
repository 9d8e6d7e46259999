import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { call } from '../support/call.ts';
import { smallFilesystem, type SmallFilesystem } from '../support/filesystem.ts';
import { shell, type Shell } from '../support/zfsdev.ts';

const GiB = 2 ** 30;
let small: SmallFilesystem;
let zfsdev: Shell;
let disk: string;

beforeAll(async () => {
  small = await smallFilesystem(12 * GiB, join(inject('vmHome'), 'images'));
  zfsdev = shell(small.home);
  disk = join(small.home, 'instances', 'brim', 'disk.qcow2');
});
afterAll(async () => {
  await zfsdev('delete', '--force', 'brim');
  await small.remove();
});

/** What the machine's disk is said to take at most, in bytes. */
async function predictedBound(): Promise<number> {
  const { filesystems } = JSON.parse((await zfsdev('plan', 'zfs-test', '--json')).stdout) as {
    filesystems: { claims: { what: string; boundBytes: number }[] }[];
  };
  const claim = filesystems.flatMap(({ claims }) => claims).find(({ what }) => what === 'the disk of brim');
  if (!claim) throw new Error('the disk is in no plan');
  return claim.boundBytes;
}

/**
 * Fills the pool, then the root file system to its last byte, with what can't be compressed: one block of random bytes
 * over and over, as each record and each cluster is compressed on its own. A pool slows down to a crawl in its last
 * megabytes, and ZFS holds half of so small a pool back: what it leaves free it is told to write a pattern over.
 */
const fill = `
rm -f /testpool/fill* /root/fill* && zpool sync && sync
# The pool's files are sparse: what the root file system takes to its last byte would be missing in the pool.
zpool set autotrim=off testpool
for file in /zfs-disks/*.img; do fallocate -l "$(stat -c %s "$file")" "$file"; done
head -c 8M /dev/urandom >/tmp/block
room=$(zfs get -Hp -o value available testpool)
i=0
while [ $((i * 8388608)) -lt $((room - 33554432)) ]; do cat /tmp/block >"/testpool/fill$i" || break; i=$((i + 1)); done
zpool sync testpool
zpool initialize -u testpool 2>/dev/null
zpool initialize -w testpool
zpool sync testpool
while cat /tmp/block; do :; done >/root/fill 2>/dev/null
sync
df --output=avail / | tail -n 1 | tr -d ' '`;

async function fillGuest(): Promise<void> {
  const filled = await zfsdev('exec', 'brim', '--', 'sh', '-c', fill);
  expect(filled).toMatchObject({ exitCode: 0, stdout: '0' });
}

it('a disk never takes more than was predicted, filled to the brim, and filled anew over a snapshot', async () => {
  const { used: before } = await small.space();
  expect((await zfsdev('up', 'zfs-test', '--name', 'brim', '--cold', '--overcommit')).exitCode).toBe(0);
  const taken = async (): Promise<number> => (await small.space()).used - before;
  const bound = await predictedBound();
  await fillGuest();
  expect(await taken()).toBeLessThanOrEqual(bound);
  expect(bound).toBeLessThanOrEqual(1.15 * (await taken()));

  expect((await zfsdev('stop', 'brim')).exitCode).toBe(0);
  expect(call('qemu-img', 'check', disk)).toContain('No errors');
  call('qemu-img', 'snapshot', '-c', 'full', disk);
  const withSnapshot = await predictedBound();
  expect((await zfsdev('start', 'brim', '--overcommit')).exitCode).toBe(0);
  await fillGuest();
  expect(await taken()).toBeLessThanOrEqual(withSnapshot);
  expect(withSnapshot).toBeLessThanOrEqual(1.15 * (await taken()));

  const health = await zfsdev('exec', 'brim', '--', 'sh', '-c', 'zpool scrub -w testpool && zpool status -x');
  expect(health.stdout).toBe('all pools are healthy');
  expect((await zfsdev('stop', 'brim')).exitCode).toBe(0);
  expect(call('qemu-img', 'check', disk)).toContain('No errors');
});
