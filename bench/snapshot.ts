import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deadlineIn } from '../src/host/deadline.ts';
import { connectQmp } from '../src/qemu/qmp.ts';
import { runSnapshotJob } from '../src/qemu/snapshot-job.ts';
import { inTurn, leastInTurn, median, seconds, timed, type Pair } from './measure.ts';
import type { Figure } from './report.ts';

const zfsdev = ['node', 'dist/zfsdev.js'] as const;
const name = 'bench-snapshot';
const runs = 5;
/** So that a tick waits for no other process of the guest: what is measured is how long the machine stands still. */
const realTime = ['chrt', '--fifo', '50'] as const;
/** MiB of its memory that the guest fills: as much as it lets a file in memory have, nearly. */
const filled = 900;

/**
 * Ticks each millisecond for so many seconds, and says what the longest gap was, in milliseconds: the guest's clock goes on while
 * it stands still. In Python, which comes with ZFS: Node would now and then stand still by itself, while it optimizes the loop.
 */
const ticker = (time: number): string => `
import gc, time
gc.disable()
last = time.monotonic()
end, longest = last + ${time}, 0
print('ticking', flush=True)
while last < end:
    time.sleep(0.001)
    now = time.monotonic()
    longest = max(longest, now - last)
    last = now
print(longest * 1000)
`;

/** Snapshots of a machine with two qcow2 disks; nothing else may run on the host meanwhile. */
export async function snapshotFigures(home: string): Promise<Figure[]> {
  const env = { ZFSDEV_HOME: home };
  const run = (...words: string[]): number => seconds([...zfsdev, ...words], env);
  run('up', 'zfs-test', '--name', name);
  try {
    run('disk', 'add', name, 'data', '--size', '1GiB');
    run('exec', name, '--', 'sh', '-ec', 'head -c 256M /dev/urandom >/dev/disk/by-id/virtio-data; sync');
    const still = await standstill(env);
    const live = againstStop(run);
    const idle = await againstJob(home, run, 'a machine that was just made');
    run('exec', name, '--', 'sh', '-ec', `head -c ${filled}M /dev/urandom >/dev/shm/filled`);
    const full = await againstJob(home, run, `one that has filled ${filled} MiB`);
    run('stop', name);
    const offline = await againstQemuImg(home, run);
    return [still, live, idle, full, offline];
  } finally {
    run('delete', '--force', name);
  }
}

/** How long the guest stands still while a live snapshot of both disks is taken, against a second in which nothing is done. */
async function standstill(env: Readonly<Record<string, string>>): Promise<Figure> {
  const measured: number[] = [];
  const idle: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    idle.push(await longestGap(env, 3, () => undefined));
    measured.push(
      await longestGap(env, 20, () => {
        seconds([...zfsdev, 'snapshot', 'create', name, `tick-${run}`, '--live'], env);
      }),
    );
    seconds([...zfsdev, 'snapshot', 'delete', name, `tick-${run}`], env);
  }
  const worst = Math.max(...measured);
  return {
    what: `longest gap between two ticks in the guest during \`snapshot create --live\` of two disks, ${runs} runs`,
    measured: `${worst.toFixed(0)} ms at worst, ${median(measured).toFixed(0)} ms in the middle (${median(idle).toFixed(0)} ms with nothing done)`,
    asked: 'at most 100 ms',
    met: worst <= 100,
    values: { worst, median: median(measured), idle: median(idle) },
  };
}

/** The longest gap in milliseconds that a process in the guest sees between its ticks while `work` is done. */
async function longestGap(
  env: Readonly<Record<string, string>>,
  time: number,
  work: () => void,
): Promise<number> {
  const child = spawn(
    'node',
    ['dist/zfsdev.js', 'exec', name, '--', ...realTime, 'python3', '-c', ticker(time)],
    {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const output = await outputAfter(child, 'ticking', work);
  const gap = Number(output.trim().split('\n').at(-1));
  if (!Number.isFinite(gap)) throw new Error(`the ticker ended without a figure: ${output}`);
  return gap;
}

/** Waits for a word of a process, does something, and waits for its end; gives all it said. */
function outputAfter(child: ChildProcess, word: string, work: () => void): Promise<string> {
  let output = '';
  let begun = false;
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (begun || !output.includes(word)) return;
      begun = true;
      try {
        work();
      } catch (error) {
        child.kill();
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
    child.once('close', () => resolve(output));
  });
}

/** The live ones first: a machine that has just been started is at work still. */
function againstStop(run: (...words: string[]) => number): Figure {
  const several = (take: (tag: string) => number, name: string): number => {
    const times = Array.from({ length: 4 }, (_, i) => take(`${name}-${i}`));
    return median(times.slice(1));
  };
  const snapshot = (tag: string, ...flags: string[]): number => {
    const taken = run('snapshot', 'create', name, tag, ...flags);
    run('snapshot', 'delete', name, tag);
    return taken;
  };
  const live = several((tag) => snapshot(tag, '--live'), 'live');
  const stopped = several((tag) => run('stop', name) + snapshot(tag) + run('start', name), 'stopped');
  const ratio = stopped / live;
  return {
    what: '`snapshot create --live` of two disks, against stop, snapshot and start',
    measured: `${ratio.toFixed(0)} x faster (${milliseconds(live)} against ${milliseconds(stopped)})`,
    asked: 'at least 20 x faster',
    met: ratio >= 20,
    values: { live, stopped, ratio },
  };
}

/** The same job, asked for at QEMU's own monitor, and listened to in the same way. */
async function againstJob(
  home: string,
  run: (...words: string[]) => number,
  machine: string,
): Promise<Figure> {
  const socket = join(home, 'instances', name, 'qmp.sock');
  const { signal } = new AbortController();
  const taken = async (work: () => Promise<unknown> | number): Promise<number> => {
    const time = await timed(work);
    run('snapshot', 'delete', name, 'memory');
    return time;
  };
  const bare = async (): Promise<void> => {
    const qmp = await connectQmp(socket, { deadline: deadlineIn(60_000), signal });
    try {
      const task = { tag: 'memory', devices: ['disk0', 'disk-data'], vmstate: 'disk0' };
      const activity = (): Promise<undefined> => Promise.resolve(undefined);
      await runSnapshotJob(qmp, 'snapshot-save', task, { activity, patience: 3_600_000, signal });
    } finally {
      qmp.close();
    }
  };
  const pair = await leastInTurn(
    runs,
    () => taken(() => run('snapshot', 'create', name, 'memory', '--live', '--memory')),
    () => taken(bare),
  );
  const what = `\`snapshot create --memory\` of ${machine}, against the bare job \`snapshot-save\``;
  return against(what, pair, 1.2);
}

/** Two files of the same size and content, by qemu-img alone. */
async function againstQemuImg(home: string, run: (...words: string[]) => number): Promise<Figure> {
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-bench-snapshot-'));
  const instance = join(home, 'instances', name);
  const copies = ['disk.qcow2', join('disks', 'data.qcow2')].map((file, i) => {
    const copy = join(folder, `${i}.qcow2`);
    const { status, stderr } = spawnSync('qemu-img', ['convert', '-O', 'qcow2', join(instance, file), copy]);
    if (status !== 0) throw new Error(String(stderr));
    return copy;
  });
  let count = 0;
  try {
    const own = (): number => run('snapshot', 'create', name, `offline-${(count += 1)}`);
    const bare = (): number =>
      copies.reduce(
        (sum, copy) => sum + seconds(['qemu-img', 'snapshot', '-c', `offline-${count}`, copy]),
        0,
      );
    return against(
      '`snapshot create` of the two disks of a stopped machine, against `qemu-img snapshot` of both',
      inTurn(runs, own, bare),
      2,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function against(what: string, pair: Pair, most: number): Figure {
  return {
    what,
    measured: `${pair.ratio.toFixed(2)} x (${milliseconds(pair.a)} against ${milliseconds(pair.b)})`,
    asked: `at most ${most} x`,
    met: pair.ratio <= most,
    values: { ...pair },
  };
}

function milliseconds(time: number): string {
  return time >= 10 ? `${time.toFixed(1)} s` : `${Math.round(time * 1000)} ms`;
}
