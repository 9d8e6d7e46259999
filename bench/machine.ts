import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { MiB } from '../src/core/bytes.ts';
import { forkFigures } from './forks.ts';
import { median, seconds } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const coldRuns = 3;

/** The image, and a machine made from it; nothing else may run on the machine meanwhile. */
export async function machineFigures(home: string): Promise<Figure[]> {
  const env = { ZFSDEV_HOME: home };
  const figures: Figure[] = [];
  const images = json(env, 'image', 'list').images as {
    digest: string;
    flavour: string;
    actualBytes: number;
  }[];
  let image = images.find(({ flavour }) => flavour === 'zfs');
  if (!image) {
    const built = seconds([...zfsdev, 'image', 'build'], env);
    figures.push({
      what: '`zfsdev image build`, nothing cached',
      measured: `${(built / 60).toFixed(1)} min`,
      asked: 'at most 10 min',
      met: built <= 600,
      values: { seconds: built },
    });
    image = (
      json(env, 'image', 'list').images as { digest: string; flavour: string; actualBytes: number }[]
    )[0];
  }
  if (!image) throw new Error('the image that was built is not listed');
  figures.push({
    what: 'size of the image on disk',
    measured: `${Math.round(image.actualBytes / MiB)} MiB`,
    asked: 'at most 250 MiB',
    met: image.actualBytes <= 250 * MiB,
    values: { bytes: image.actualBytes },
  });
  // The first boot also finds out which accelerator works; that is done once a host, so it is no part of a cold up.
  seconds([...zfsdev, 'up', 'zfs-test', '--name', 'first'], env);
  seconds([...zfsdev, 'delete', '--force', 'first'], env);
  const ups: number[] = [];
  let bytesAfterUp = 0;
  let accelerator = '';
  for (let i = 0; i < coldRuns; i += 1) {
    ups.push(seconds([...zfsdev, 'up', 'zfs-test', '--cold', '--name', 'bench'], env));
    const folder = join(home, 'instances', 'bench');
    bytesAfterUp = Math.max(bytesAfterUp, folderSize(folder));
    accelerator = (JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as { accelerator: string })
      .accelerator;
    seconds([...zfsdev, 'delete', '--force', 'bench'], env);
  }
  const limit = accelerator === 'tcg' ? 35 : 5;
  const worst = Math.max(...ups);
  return [
    ...figures,
    {
      what: `\`up zfs-test --cold\` under ${accelerator}, the image there, ${coldRuns} runs`,
      measured: `${Math.min(...ups).toFixed(1)} to ${worst.toFixed(1)} s`,
      asked: `at most ${limit} s`,
      met: worst <= limit,
      values: Object.fromEntries(ups.map((value, i) => [`run${i + 1}`, value])),
    },
    {
      what: 'a new instance on the host after `up`',
      measured: `${Math.round(bytesAfterUp / MiB)} MiB`,
      asked: 'at most 60 MiB',
      met: bytesAfterUp <= 60 * MiB,
      values: { bytes: bytesAfterUp },
    },
    ...(await forkFigures(home, median(ups))),
  ];
}

function json(env: Readonly<Record<string, string>>, ...args: string[]): Record<string, unknown> {
  const { stdout, status, stderr } = spawnSync('node', ['dist/zfsdev.js', ...args, '--json'], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Record<string, unknown>;
}

function folderSize(folder: string): number {
  const { stdout } = spawnSync('du', ['-s', '--block-size=1', folder], { encoding: 'utf8' });
  statSync(folder);
  return Number(stdout.split('\t')[0]);
}
