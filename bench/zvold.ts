import { build } from 'esbuild';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../src/core/bytes.ts';
import { leastInTurn, seconds, type Pair } from './measure.ts';
import type { Figure } from './report.ts';
import type { ClientsReport } from './zvold-clients.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const name = 'bench-volumes';
/** An emulated machine takes half an hour for all of it. */
const patience = 3 * 3_600_000;

interface Report {
  readonly memory: number;
  readonly memoryAfter: number;
  readonly volumes: number;
  readonly snapshots: number;
  readonly create: Pair;
  readonly clone: Pair;
  readonly snapshot: Pair;
  readonly delete: Pair;
  readonly cloneOfLarge: Pair;
  readonly import: Pair;
  readonly list: Pair;
  readonly clients: ClientsReport;
}

/**
 * zvold in a machine, against ZFS's own commands beside it there: asked over its own socket by a client in the machine, so that the
 * way from the host is no part of it; and two figures from the host. `ZFSDEV_BENCH_VOLUMES` volumes are listed, with three
 * snapshots each.
 */
export async function zvoldFigures(home: string): Promise<Figure[]> {
  const volumes = Number(process.env['ZFSDEV_BENCH_VOLUMES'] ?? 1000);
  if (!Number.isInteger(volumes) || volumes < 1)
    throw new Error('ZFSDEV_BENCH_VOLUMES is no number of volumes');
  const env = { ZFSDEV_HOME: home };
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-bench-zvold-'));
  try {
    const program = join(folder, 'bench.mjs');
    await bundle(program);
    seconds([...zfsdev, 'up', 'zfs-test', '--name', name, '--pool-size', '2GiB'], env);
    const report = inGuest(home, program, volumes);
    return [...figuresOf(report), ...(await hostFigures(home, report))];
  } finally {
    // Also of a run that failed before there was a machine; that failure is what has to be told.
    spawnSync('node', ['dist/zfsdev.js', 'delete', '--force', name], { env: { ...process.env, ...env } });
    await rm(folder, { recursive: true, force: true });
  }
}

async function bundle(outfile: string): Promise<void> {
  await build({
    entryPoints: ['bench/zvold-guest.ts'],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'warning',
    banner: {
      js: "import { createRequire } from 'node:module';\nconst require = createRequire(import.meta.url);",
    },
  });
}

/** Runs the guest's part, whose words of progress are shown. @throws Error */
function inGuest(home: string, program: string, volumes: number): Report {
  const env = { ZFSDEV_HOME: home };
  seconds([...zfsdev, 'copy', program, `${name}:/root/bench.mjs`], env);
  const make = `head -c 256M /dev/urandom >/root/raw && truncate -s 1G /root/raw &&
qemu-img convert -f raw -O qcow2 /root/raw /root/disk.qcow2 && rm /root/raw`;
  seconds([...zfsdev, 'exec', name, '--', 'sh', '-c', make], env);
  const words = ['exec', name, '--', 'node', '/root/bench.mjs', String(volumes), '/root/disk.qcow2'];
  const { stdout, status, error } = spawnSync('node', ['dist/zfsdev.js', ...words], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: patience,
  });
  if (error) throw error;
  if (status !== 0) throw new Error(`the guest's part exited ${String(status)}: its words are above`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Report;
}

/** What a user types on the host, against the same by hand: both start Node, and go through the guest's channel. */
async function hostFigures(home: string, { volumes, snapshots }: Report): Promise<Figure[]> {
  const call = (...words: string[]): Promise<number> =>
    Promise.resolve(seconds([...zfsdev, ...words], { ZFSDEV_HOME: home }));
  const inShell = (script: string): Promise<number> => call('exec', name, '--', 'sh', '-c', script);
  let turn = 0;
  const next = (): string => `host${(turn += 1)}`;
  const list = await leastInTurn(
    3,
    () => call('volume', 'list', name, '--json'),
    () => inShell('zfs list -Hp -r -t volume,snapshot testpool'),
  );
  const create = await leastInTurn(
    3,
    () => call('volume', 'create', name, next(), '--size', '16MiB'),
    () => inShell(`zfs create -s -b 16k -V 16M testpool/${next()} && udevadm settle`),
  );
  return [
    ratio(
      `on the host: \`volume list\` of ${volumes} volumes and ${snapshots} snapshots, against \`exec -- zfs list\``,
      list,
    ),
    ratio('on the host: `volume create`, against `exec` of `zfs create` and `udevadm settle`', create),
  ];
}

/** A ratio, and at most how large it should be, if that was asked. */
function ratio(what: string, pair: Pair, most?: number): Figure {
  const { a, b, ratio } = pair;
  return {
    what,
    measured: `${ratio.toFixed(2)} x (${Math.round(a * 1000)} ms against ${Math.round(b * 1000)} ms)`,
    ...(most === undefined ? {} : { asked: `at most ${most} x`, met: ratio <= most }),
    values: { ...pair },
  };
}

function figuresOf(report: Report): Figure[] {
  return [
    ratio(
      `zvold's list of ${report.volumes} volumes and ${report.snapshots} snapshots, against one \`zfs list\` of the same`,
      report.list,
      1.3,
    ),
    ratio('zvold creates a volume, against `zfs create` and `udevadm settle`', report.create, 1.3),
    ratio('zvold takes a snapshot, against `zfs snapshot` and `udevadm settle`', report.snapshot, 1.3),
    ratio('zvold clones a template, against `zfs clone` and `udevadm settle`', report.clone, 1.3),
    ratio('zvold deletes a volume, against `zfs destroy` and `udevadm settle`', report.delete, 1.3),
    ratio(
      'zvold clones a template of 256 MiB with 64 MiB in it, against an empty one',
      report.cloneOfLarge,
      1.3,
    ),
    ratio(
      'zvold imports a qcow2 of 1 GiB with 256 MiB in it, against `qemu-img convert` to a volume that is there, and its `sync`',
      report.import,
      1.1,
    ),
    {
      what: 'memory of zvold, idle',
      measured: `${Math.round(report.memory / MiB)} MiB (${Math.round(report.memoryAfter / MiB)} MiB after all of the above)`,
      asked: 'at most 80 MiB',
      met: report.memory <= 80 * MiB,
      values: { bytes: report.memory, bytesAfter: report.memoryAfter },
    },
    clientsFigure(report.clients),
  ];
}

function clientsFigure({ clients, seconds, calls, errors, volumes, held }: ClientsReport): Figure {
  for (const error of errors) console.error(`zvold: a client of many failed: ${error}`);
  return {
    what: `${clients} clients of zvold at once, each with a volume of its own and a held snapshot of one they share`,
    measured: `${errors.length} of ${calls} calls failed, ${volumes} volumes and ${held} held snapshots are there (${seconds.toFixed(1)} s)`,
    asked: 'no error, nothing lost',
    met: errors.length === 0 && volumes === clients && held === clients,
    values: { clients, seconds, calls, errors: errors.length, volumes, held },
  };
}
