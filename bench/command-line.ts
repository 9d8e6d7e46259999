import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytes, GiB } from '../src/core/bytes.ts';
import { parseName } from '../src/core/names.ts';
import { resolvePaths } from '../src/host/paths.ts';
import { resolveSpec } from '../src/template/resolve.ts';
import { inTurn, seconds } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const runs = 15;

/** What every call costs before it does anything. */
export async function commandLineFigures(): Promise<Figure[]> {
  const home = await mkdtemp(join(tmpdir(), 'zfsdev-bench-list-'));
  try {
    await fiftyInstances(home);
    const version = inTurn(
      runs,
      () => seconds([...zfsdev, '--version']),
      () => seconds(['node', '-e', '0']),
    );
    const list = inTurn(
      runs,
      () => seconds([...zfsdev, 'list'], { ZFSDEV_HOME: home }),
      () => seconds([...zfsdev, '--version']),
    );
    const more = list.a - list.b;
    return [
      {
        what: '`zfsdev --version` against `node -e 0`',
        measured: `${version.ratio.toFixed(2)} x (${ms(version.a)} against ${ms(version.b)})`,
        asked: 'at most 1.6 x',
        met: version.ratio <= 1.6,
        values: version as unknown as Record<string, number>,
      },
      {
        what: '`zfsdev list` of 50 instances, beyond `--version`',
        measured: ms(more),
        asked: 'at most 300 ms',
        met: more <= 0.3,
        values: list as unknown as Record<string, number>,
      },
    ];
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

function ms(value: number): string {
  return `${Math.round(value * 1000)} ms`;
}

async function fiftyInstances(home: string): Promise<void> {
  const paths = resolvePaths({ ZFSDEV_HOME: home });
  const first = paths.instance(parseName('vm-0'));
  const spec = await resolveSpec('zfs-test', {});
  await mkdir(first.folder, { recursive: true });
  await writeFile(first.spec, JSON.stringify(spec));
  await writeFile(first.disk, '');
  await writeFile(
    first.state,
    JSON.stringify({
      version: 1,
      driver: 'qemu',
      phase: 'started',
      created: new Date().toISOString(),
      imageDigest: 'f'.repeat(64),
      mac: '52:54:00:00:00:01',
      machineId: '0'.repeat(32),
      sshPort: 2222,
      diskBound: bytes(4 * GiB),
    }),
  );
  for (let i = 1; i < 50; i += 1)
    await cp(first.folder, paths.instance(parseName(`vm-${i}`)).folder, { recursive: true });
}
