import { spawnSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GiB, MiB } from '../src/core/bytes.ts';
import { resolvePaths } from '../src/host/paths.ts';
import { stoppedInstance } from '../test/support/instances.ts';
import { inTurn, seconds } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const forks = 10;

/** Giving space back, and what machines take at all. */
export async function reclaimFigures(home: string): Promise<Figure[]> {
  // Each part can be measured alone: the image and a warm state are made here unless an earlier part did.
  seconds([...zfsdev, 'warm', 'build', 'zfs-test'], { ZFSDEV_HOME: home });
  return [...(await compactFigures(home)), ...(await trimFigures(home)), ...forkSizes(home)];
}

/** A guest's own root file system, written anew by zfsdev and by what people type instead. */
async function compactFigures(home: string): Promise<Figure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-bench-compact-'));
  try {
    const { disk } = await stoppedInstance(resolvePaths({ ZFSDEV_HOME: folder }), 'full');
    const plain = join(folder, 'plain.qcow2');
    seconds(['qemu-img', 'convert', '-O', 'qcow2', await imageDisk(home), plain]);
    const convert = (compression: string): number =>
      seconds([
        'qemu-img',
        ...['convert', '-O', 'qcow2', '-c', '-o', `compression_type=${compression}`],
        ...[plain, join(folder, `${compression}.qcow2`)],
      ]);
    const times = inTurn(
      3,
      () => {
        copyFileSync(plain, disk);
        return seconds([...zfsdev, 'compact', 'full', '--overcommit'], { ZFSDEV_HOME: folder });
      },
      () => convert('zlib'),
    );
    convert('zstd');
    const [ours, theirs] = await Promise.all([disk, join(folder, 'zstd.qcow2')].map(actual));
    const size = (ours ?? 0) / (theirs ?? 1);
    return [
      {
        what: '`zfsdev compact`, its checks included, against `qemu-img convert -O qcow2 -c` (zlib)',
        measured: `1/${(1 / times.ratio).toFixed(1)} of the time (${times.a.toFixed(1)} s against ${times.b.toFixed(1)} s)`,
        asked: 'at most 1/4',
        met: times.ratio <= 1 / 4,
        values: { ...times },
      },
      {
        what: 'size after `zfsdev compact` against `qemu-img convert -c` with zstd',
        measured: `${size.toFixed(3)} x`,
        asked: 'at most 1.02 x',
        met: size <= 1.02,
        values: { ratio: size },
      },
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** 2 GiB are written, most of them to the root file system, 64 MiB to the pool, which stores them twice; and deleted. */
const write = `
head -c 32M /dev/urandom >/root/block
for i in $(seq 59); do cat /root/block >/root/file$i; done
cat /root/block /root/block >/testpool/file
zpool sync && sync`;

async function trimFigures(home: string): Promise<Figure[]> {
  const env = { ZFSDEV_HOME: home };
  const disk = join(home, 'instances', 'bench', 'disk.qcow2');
  seconds([...zfsdev, 'up', 'zfs-test', '--name', 'bench'], env);
  try {
    const before = await actual(disk);
    seconds([...zfsdev, 'exec', 'bench', '--', 'sh', '-c', write], env);
    const full = await actual(disk);
    seconds([...zfsdev, 'exec', 'bench', '--', 'sh', '-c', 'rm /root/block /root/file* /testpool/file'], env);
    seconds([...zfsdev, 'clean', 'bench'], env);
    const share = (full - (await actual(disk))) / (full - before);
    return [
      {
        what: `of ${((full - before) / GiB).toFixed(2)} GiB written and deleted, what \`clean\` (which trims) gives back`,
        measured: `${(share * 100).toFixed(1)} %`,
        asked: 'at least 95 %',
        met: share >= 0.95,
        values: { share },
      },
    ];
  } finally {
    seconds([...zfsdev, 'delete', '--force', 'bench'], env);
  }
}

function forkSizes(home: string): Figure[] {
  const env = { ZFSDEV_HOME: home };
  const names = Array.from({ length: forks }, (_, i) => `ten-${i}`);
  try {
    for (const name of names) seconds([...zfsdev, 'up', 'zfs-test', '--name', name, '--overcommit'], env);
    const { stdout } = spawnSync('node', ['dist/zfsdev.js', 'usage', '--json'], {
      env: { ...process.env, ...env },
      encoding: 'utf8',
    });
    const { totalBytes } = JSON.parse(stdout) as { totalBytes: number };
    const each = totalBytes / forks;
    return [
      {
        what: `${forks} forked machines, with images and warm states, on the host: each`,
        measured: `${Math.round(each / MiB)} MiB`,
        asked: 'at most a tenth of 3 GB',
        met: each <= 0.3e9,
        values: { bytes: each },
      },
    ];
  } finally {
    for (const name of names)
      spawnSync('node', ['dist/zfsdev.js', 'delete', '--force', name], { env: { ...process.env, ...env } });
  }
}

async function imageDisk(home: string): Promise<string> {
  const images = join(home, 'images');
  for (const name of await readdir(images)) {
    const disk = join(images, name, 'disk.qcow2');
    if (
      await stat(disk).then(
        () => true,
        () => false,
      )
    )
      return disk;
  }
  throw new Error('there is no image');
}

async function actual(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}
