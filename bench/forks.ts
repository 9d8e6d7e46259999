import { bareRestore, type Way } from './bare-restore.ts';
import { median, seconds } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const rounds = 7;
const many = 8;
const words: Readonly<Record<Way, string>> = {
  stream: 'its memory read from a stream',
  mapped: 'its memory mapped as forks do',
};

/** A fork against the boot measured beside it, a bare restore of the same state, and a disposable machine. */
export async function forkFigures(home: string, cold: number): Promise<Figure[]> {
  const env = { ZFSDEV_HOME: home };
  const call = (...args: string[]): number => seconds([...zfsdev, ...args], env);
  const gone = (): number => call('delete', '--force', 'bench');
  const firsts = Array.from({ length: 3 }, () => {
    call('warm', 'prune');
    const first = call('up', 'zfs-test', '--name', 'bench');
    gone();
    return first;
  });
  const first = median(firsts);
  const found: { up: number; run: number; mapped: number; stream: number }[] = [];
  for (let i = 0; i < rounds; i += 1) {
    const up = call('up', 'zfs-test', '--name', 'bench');
    const mapped = await bareRestore(home, 'bench', 'mapped');
    const stream = await bareRestore(home, 'bench', 'stream');
    gone();
    found.push({ up, mapped, stream, run: call('run', 'zfs-test', '--', 'true') });
  }
  const warm = median(found.map(({ up }) => up));
  const bare = (way: Way): Figure => {
    const ratio = median(found.map((each) => each.up / each[way]));
    const alone = median(found.map((each) => each[way]));
    return figure(
      `warm \`up zfs-test\` against a bare QEMU restoring that machine until QMP says running, ${words[way]}`,
      {
        measured: `${ratio.toFixed(1)} x (${warm.toFixed(2)} s against ${alone.toFixed(2)} s)`,
        asked: 'at most 2 x',
        met: ratio <= 2,
        values: { warm, bare: alone },
      },
    );
  };
  const run = median(found.map((each) => each.run));
  const toRun = median(found.map((each) => each.run / each.up));
  const eight = call('run', 'zfs-test', '--count', String(many), '--', 'true');
  return [
    figure('the first `up zfs-test`, which saves a warm machine, beyond a cold one', {
      measured: `${(first - cold).toFixed(1)} s`,
      asked: 'at most 3 s',
      met: first - cold <= 3,
      values: { first, cold },
    }),
    figure('warm `up zfs-test` against the cold one', {
      measured: `${warm.toFixed(2)} s, ${(cold / warm).toFixed(1)} x faster`,
      asked: 'at least 20 x faster',
      met: cold / warm >= 20,
      values: { warm, cold },
    }),
    bare('stream'),
    bare('mapped'),
    figure('`run zfs-test -- true` against warm `up`, its deletion included', {
      measured: `${toRun.toFixed(2)} x`,
      asked: 'at most 1.5 x',
      met: toRun <= 1.5,
      values: { run, up: warm },
    }),
    figure(`\`run zfs-test --count ${many} -- true\` against one`, {
      measured: `${(eight / run).toFixed(1)} x (${eight.toFixed(1)} s)`,
      asked: `at most ${many} x`,
      met: eight / run <= many,
      values: { eight, one: run },
    }),
  ];
}

function figure(what: string, rest: Omit<Figure, 'what'>): Figure {
  return { what, ...rest };
}
