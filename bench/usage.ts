import { spawnSync } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseName } from '../src/core/names.ts';
import { resolvePaths } from '../src/host/paths.ts';
import { resolveSpec } from '../src/template/resolve.ts';
import { newState } from '../src/vm/state.ts';
import { inTurn, seconds } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const count = 100;
const runs = 5;

/** `usage` of many stopped instances against what people type instead. Needs qemu-img. */
export async function usageFigures(): Promise<Figure[]> {
  const home = await mkdtemp(join(tmpdir(), 'zfsdev-bench-usage-'));
  try {
    const disks = await stoppedInstances(home);
    const loop = join(home, 'loop.sh');
    await writeFile(loop, disks.map((disk) => `qemu-img info '${disk}'\ndu -h '${disk}'\n`).join(''));
    const env = { ZFSDEV_HOME: home };
    const toLoop = inTurn(
      runs,
      () => seconds([...zfsdev, 'usage'], env),
      () => seconds(['sh', loop]),
    );
    const toVersion = inTurn(
      runs,
      () => seconds([...zfsdev, 'usage'], env),
      () => seconds([...zfsdev, '--version']),
    );
    const more = toVersion.a - toVersion.b;
    return [
      {
        what: `\`zfsdev usage\` of ${count} stopped instances against \`qemu-img info\` and \`du\` of each`,
        measured: `1/${(1 / toLoop.ratio).toFixed(0)} (${toLoop.a.toFixed(2)} s against ${toLoop.b.toFixed(1)} s)`,
        asked: 'at most 1/20',
        met: toLoop.ratio <= 1 / 20,
        values: { ...toLoop },
      },
      {
        what: `\`zfsdev usage\` of ${count} stopped instances, beyond \`--version\``,
        measured: `${Math.round(more * 1000)} ms`,
        asked: 'at most 300 ms',
        met: more <= 0.3,
        values: { ...toVersion },
      },
    ];
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

async function stoppedInstances(home: string): Promise<string[]> {
  const paths = resolvePaths({ ZFSDEV_HOME: home });
  const first = paths.instance(parseName('vm-0'));
  await mkdir(first.folder, { recursive: true });
  await writeFile(first.spec, JSON.stringify(await resolveSpec('zfs-test', {})));
  await writeFile(first.state, JSON.stringify({ ...newState('qemu'), phase: 'started' }));
  const { status, stderr } = spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', first.disk, '4G']);
  if (status !== 0) throw new Error(String(stderr));
  const disks = [first.disk];
  for (let i = 1; i < count; i += 1) {
    const { folder, disk } = paths.instance(parseName(`vm-${i}`));
    await cp(first.folder, folder, { recursive: true });
    disks.push(disk);
  }
  return disks;
}
