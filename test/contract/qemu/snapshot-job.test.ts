import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { connectQmp, type Qmp } from '../../../src/qemu/qmp.ts';
import { runSnapshotJob } from '../../../src/qemu/snapshot-job.ts';
import type { Clock, Watch } from '../../../src/qemu/stall.ts';
import { qmpPeer, refuses, returns, type Expected, type QmpPeer } from '../../fakes/qmp-peer.ts';

const id = 'zfsdev-snapshot';
const task = { tag: 'is', devices: ['disk0', 'disk1'], vmstate: 'disk0' };
const save = { 'job-id': id, tag: 'is', devices: ['disk0', 'disk1'], vmstate: 'disk0' };
let folder: string;
let peer: QmpPeer;
let qmp: Qmp;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-job-'));
});
afterEach(async () => {
  qmp.close();
  await peer.close();
  await rm(folder, { recursive: true, force: true });
});

async function play(...script: readonly Expected[]): Promise<void> {
  const path = join(folder, 'qmp.sock');
  peer = await qmpPeer(path, script);
  qmp = await connectQmp(path, { deadline: deadlineIn(5000), signal: new AbortController().signal });
}

const job = (status: string, error?: string): object => ({
  id,
  type: 'snapshot-save',
  status,
  'current-progress': 1,
  'total-progress': 1,
  ...(error === undefined ? {} : { error }),
});
const dismiss = returns('job-dismiss', {}, { id });

/** QEMU answers once its job is over: so many milliseconds later. */
function slowly(milliseconds: number): Expected {
  return {
    execute: 'snapshot-save',
    arguments: save,
    reply: (request, { send }) => void setTimeout(() => send({ return: {}, id: request.id }), milliseconds),
  };
}

function watch(more: Partial<Watch> = {}): Watch {
  let moved = 0;
  return {
    activity: () => Promise.resolve((moved += 1)),
    patience: 300,
    signal: new AbortController().signal,
    ...more,
  };
}

it('takes a job for done when the job says so, and dismisses it', async () => {
  await play(
    returns('query-jobs', []),
    returns('snapshot-save', {}, save),
    returns('query-jobs', [job('running')]),
    returns('query-jobs', [job('concluded')]),
    dismiss,
  );
  await runSnapshotJob(qmp, 'snapshot-save', task, watch());
  peer.verify();
});

it('fails in the words of the job, although QEMU took the command', async () => {
  const words = "Snapshot 'is' already exists in one or more devices";
  await play(
    returns('query-jobs', []),
    returns('snapshot-save', {}, save),
    returns('query-jobs', [job('concluded', words)]),
    dismiss,
  );
  await expect(runSnapshotJob(qmp, 'snapshot-save', task, watch())).rejects.toMatchObject({
    reason: 'process',
    message: expect.stringContaining(words) as string,
  });
  peer.verify();
});

it('dismisses what a zfsdev that was killed has left, and nothing else', async () => {
  await play(
    returns('query-jobs', [job('concluded'), { ...job('concluded'), id: 'mirror' }]),
    dismiss,
    returns('snapshot-delete', {}, { 'job-id': id, tag: 'is', devices: ['disk0', 'disk1'] }),
    returns('query-jobs', [job('concluded')]),
    dismiss,
  );
  await runSnapshotJob(qmp, 'snapshot-delete', task, watch());
  peer.verify();
});

it('waits far beyond its patience as long as QEMU reads or writes, and tells how much', async () => {
  const told: number[] = [];
  await play(returns('query-jobs', []), slowly(1500), returns('query-jobs', [job('concluded')]), dismiss);
  await runSnapshotJob(qmp, 'snapshot-save', task, watch({ progress: (bytes) => told.push(bytes) }));
  expect(told.length).toBeGreaterThan(5);
  expect(told).toEqual([...told].sort((a, b) => a - b));
});

it('gives up on a QEMU that hangs', async () => {
  await play(returns('query-jobs', []), slowly(60_000));
  const hung = runSnapshotJob(qmp, 'snapshot-save', task, watch({ activity: () => Promise.resolve(7) }));
  await expect(hung).rejects.toMatchObject({
    reason: 'deadline',
    message: expect.stringContaining('no progress') as string,
  });
});

it('asks for the end of the job at an interrupt, and waits for it, as nothing may be undone before', async () => {
  const stop = new AbortController();
  await play(
    returns('query-jobs', []),
    slowly(400),
    refuses(
      'job-cancel',
      'GenericError',
      "Job 'zfsdev-snapshot' in state 'concluded' cannot accept command verb 'cancel'",
    ),
    returns('query-jobs', [job('concluded')]),
    dismiss,
  );
  const began = performance.now();
  setTimeout(() => stop.abort(), 100);
  const interrupted = runSnapshotJob(qmp, 'snapshot-save', task, watch({ signal: stop.signal }));
  await expect(interrupted).rejects.toMatchObject({ reason: 'interrupted' });
  expect(performance.now() - began).toBeGreaterThan(350);
});

it('fails when QEMU ends in the middle', async () => {
  await play(returns('query-jobs', []), {
    execute: 'snapshot-save',
    arguments: save,
    reply: (_, { socket }) => socket.destroy(),
  });
  await expect(runSnapshotJob(qmp, 'snapshot-save', task, watch())).rejects.toMatchObject({
    reason: 'process',
  });
});

describe('a job of hours', () => {
  const minute = 60_000;
  const GiB = 2 ** 30;

  /** A clock whose time goes by only where somebody waits, and a QEMU that writes memory to a slow disk meanwhile. */
  function slowDisk(bytesAMinute: (minutes: number) => number): {
    clock: Clock;
    written: () => number;
    minutes: () => number;
    until: (bytes: number) => Promise<void>;
  } {
    let [now, written] = [0, 0];
    const waiting = new Set<() => void>();
    return {
      clock: {
        now: () => now,
        wait: async (milliseconds) => {
          // Others have their turn in between.
          await new Promise((resolve) => setImmediate(resolve));
          now += milliseconds;
          written += (bytesAMinute(now / minute) * milliseconds) / minute;
          for (const look of waiting) look();
        },
      },
      written: () => Math.floor(written),
      minutes: () => now / minute,
      until: (bytes) =>
        new Promise((resolve) => {
          const look = (): void => {
            if (written < bytes) return;
            waiting.delete(look);
            resolve();
          };
          waiting.add(look);
        }),
    };
  }

  /** QEMU answers nobody until all of the memory is written. */
  function saves(bytes: number, disk: ReturnType<typeof slowDisk>): Expected {
    return {
      execute: 'snapshot-save',
      arguments: save,
      reply: (request, { send }) => void disk.until(bytes).then(() => send({ return: {}, id: request.id })),
    };
  }

  /** What the product itself has patience for. */
  const patience = 3 * minute;

  it('is not cut short as long as it gets anywhere: 8 GiB at 1 MiB a second', async () => {
    const disk = slowDisk(() => 60 * 2 ** 20);
    await play(
      returns('query-jobs', []),
      saves(8 * GiB, disk),
      returns('query-jobs', [job('concluded')]),
      dismiss,
    );
    const activity = (): Promise<number> => Promise.resolve(disk.written());
    await runSnapshotJob(qmp, 'snapshot-save', task, watch({ activity, patience, clock: disk.clock }));
    expect(disk.minutes()).toBeGreaterThan(2 * 60);
    peer.verify();
  });

  it('is not cut short while QEMU waits for the host to bring what it wrote to the disk', async () => {
    const disk = slowDisk(() => 60 * 2 ** 20);
    await play(
      returns('query-jobs', []),
      saves(2 * GiB, disk),
      returns('query-jobs', [job('concluded')]),
      dismiss,
    );
    const flushing = {
      activity: () => Promise.resolve(2 * GiB),
      waiting: () => Promise.resolve(disk.written()),
    };
    await runSnapshotJob(qmp, 'snapshot-save', task, watch({ ...flushing, patience, clock: disk.clock }));
    expect(disk.minutes()).toBeGreaterThan(30);
    peer.verify();
  });

  it('that gets nowhere any more after an hour is given up, and what to do is told', async () => {
    const disk = slowDisk((minutes) => (minutes < 60 ? 60 * 2 ** 20 : 0));
    await play(returns('query-jobs', []), saves(8 * GiB, disk));
    const hung = runSnapshotJob(
      qmp,
      'snapshot-save',
      task,
      watch({
        activity: () => Promise.resolve(disk.written()),
        patience,
        clock: disk.clock,
        wayOut: 'zfsdev stop --force a',
      }),
    );
    await expect(hung).rejects.toMatchObject({
      reason: 'deadline',
      message: "QEMU's snapshot-save has made no progress for 180 s",
      hint: 'zfsdev stop --force a',
    });
    expect(disk.minutes()).toBeGreaterThan(60);
    expect(disk.minutes()).toBeLessThan(64);
  });
});
