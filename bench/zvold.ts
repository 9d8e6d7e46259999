import { build } from 'esbuild';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../src/core/bytes.ts';
import { seconds, type Pair } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const name = 'bench-volumes';

interface Report {
  readonly memory: number;
  readonly volumes: number;
  readonly snapshots: number;
  readonly create: Pair;
  readonly clone: Pair;
  readonly snapshot: Pair;
  readonly delete: Pair;
  readonly cloneOfLarge: Pair;
  readonly import: Pair;
  readonly list: Pair;
}

/** zvold in a machine, against ZFS's own commands beside it there; `volumes` in the list, each with three snapshots. */
export async function zvoldFigures(home: string, volumes = 1000): Promise<Figure[]> {
  const env = { ZFSDEV_HOME: home };
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-bench-zvold-'));
  const program = join(folder, 'bench.mjs');
  await build({
    entryPoints: ['bench/zvold-guest.ts'],
    outfile: program,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'warning',
    banner: {
      js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);",
    },
  });
  seconds([...zfsdev, 'up', 'zfs-test', '--name', name, '--pool-size', '2GiB'], env);
  try {
    seconds([...zfsdev, 'copy', program, `${name}:/root/bench.mjs`], env);
    const make = `head -c 256M /dev/urandom >/root/raw && truncate -s 1G /root/raw &&
qemu-img convert -f raw -O qcow2 /root/raw /root/disk.qcow2 && rm /root/raw`;
    seconds([...zfsdev, 'exec', name, '--', 'sh', '-c', make], env);
    const words = ['exec', name, '--', 'node', '/root/bench.mjs', String(volumes), '/root/disk.qcow2'];
    const { stdout, stderr, status } = spawnSync('node', ['dist/zfsdev.js', ...words], {
      env: { ...process.env, ...env },
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(stderr);
    return figuresOf(JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Report);
  } finally {
    seconds([...zfsdev, 'delete', '--force', name], env);
    await rm(folder, { recursive: true, force: true });
  }
}

function figuresOf(report: Report): Figure[] {
  const against = (what: string, { a, b, ratio }: Pair, most: number): Figure => ({
    what,
    measured: `${ratio.toFixed(2)} x (${Math.round(a * 1000)} ms against ${Math.round(b * 1000)} ms)`,
    asked: `at most ${most} x`,
    met: ratio <= most,
    values: { a, b, ratio },
  });
  return [
    against(
      `zvold's list of ${report.volumes} volumes and ${report.snapshots} snapshots against one \`zfs list\` of the same`,
      report.list,
      1.3,
    ),
    against('zvold creates a volume, against `zfs create` and `udevadm settle`', report.create, 1.3),
    against('zvold takes a snapshot, against `zfs snapshot`', report.snapshot, 1.3),
    against('zvold clones a template, against `zfs clone` and `udevadm settle`', report.clone, 1.3),
    against('zvold deletes a volume, against `zfs destroy` and `udevadm settle`', report.delete, 1.3),
    against(
      'zvold clones a template of 256 MiB with 64 MiB in it, against an empty one',
      report.cloneOfLarge,
      1.3,
    ),
    against(
      'zvold imports a qcow2 of 1 GiB with 256 MiB in it, against `zfs create`, `qemu-img convert` to it, `sync`',
      report.import,
      1.1,
    ),
    {
      what: 'memory of zvold, idle',
      measured: `${Math.round(report.memory / MiB)} MiB`,
      asked: 'at most 80 MiB',
      met: report.memory <= 80 * MiB,
      values: { bytes: report.memory },
    },
  ];
}
