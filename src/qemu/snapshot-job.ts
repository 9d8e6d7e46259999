import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from '../core/errors.ts';
import type { Qmp } from './qmp.ts';

/** What one of QEMU's snapshot jobs is about. */
export interface SnapshotTask {
  readonly tag: string;
  /** Names of the nodes of all disks of the set. */
  readonly devices: readonly string[];
  /** The node of the one that holds the memory. */
  readonly vmstate: string;
}

/** Tells a job that takes its time from one that hangs. */
export interface Watch {
  /** Bytes that QEMU has read and written so far, or anything else that only grows while it works. */
  readonly activity: () => Promise<number | undefined>;
  /** Milliseconds without any after which nothing more is to be hoped for. */
  readonly patience: number;
  /** Told how many bytes went by since the start. */
  readonly progress?: (bytes: number) => void;
  readonly signal: AbortSignal;
}

/** For an answer that comes when it comes: somebody else watches. A day, as timers don't know much more. */
const unlimited = 24 * 3_600_000;
/** One at a time: whoever asks holds the machine's lock. */
const id = 'zfsdev-snapshot';

/**
 * Has QEMU save or restore memory and disks, or delete a snapshot, and waits until its job says how that went. QEMU
 * does nothing else meanwhile and answers nobody, so no time that an answer takes means anything: the wait ends when
 * QEMU no longer reads or writes. An interrupt asks for the job's end and waits for that, as nothing may be undone before.
 * @throws Failure `process` in the job's own words, or if QEMU ended; `deadline`, `interrupted`.
 */
export async function runSnapshotJob(
  qmp: Qmp,
  kind: 'snapshot-save' | 'snapshot-load' | 'snapshot-delete',
  { tag, devices, vmstate }: SnapshotTask,
  watch: Watch,
): Promise<void> {
  if (watch.signal.aborted) throw new Failure('interrupted', `interrupted before ${kind}`);
  await dismissOld(qmp);
  const common = { 'job-id': id, tag, devices };
  const options = { deadline: unlimited };
  const cancel = (): void => void qmp.execute('job-cancel', { id }, options).catch(() => undefined);
  watch.signal.addEventListener('abort', cancel, { once: true });
  const stall = stalled(kind, watch);
  const carryOut = async (): Promise<void> => {
    if (kind === 'snapshot-delete') await qmp.execute(kind, common, options);
    else await qmp.execute(kind, { ...common, vmstate }, options);
    await concluded(qmp, kind);
  };
  try {
    await Promise.race([carryOut(), stall.failure]);
  } finally {
    stall.end();
    watch.signal.removeEventListener('abort', cancel);
  }
  if (watch.signal.aborted) throw new Failure('interrupted', `interrupted during ${kind}`);
}

/** Waits for the end of a job, which is the only place where a failure of it shows. */
async function concluded(qmp: Qmp, kind: string): Promise<void> {
  for (let pause = 5; ; pause = Math.min(pause * 1.5, 200)) {
    const job = (await qmp.execute('query-jobs', undefined, { deadline: unlimited })).find(
      (one) => one.id === id,
    );
    if (!job) throw new Failure('process', `QEMU has lost its job ${kind}`);
    if (job.status === 'concluded') {
      await qmp.execute('job-dismiss', { id });
      if (job.error === undefined) return;
      throw new Failure('process', `QEMU's ${kind} failed: ${job.error}`, {
        data: { job: kind, error: job.error },
      });
    }
    await delay(pause);
  }
}

/** A zfsdev that was killed can't have dismissed its job, which QEMU keeps until somebody does. */
async function dismissOld(qmp: Qmp): Promise<void> {
  const left = await qmp.execute('query-jobs');
  for (const job of left)
    if (job.id === id && job.status === 'concluded') await qmp.execute('job-dismiss', { id });
}

function stalled(
  kind: string,
  { activity, patience, progress }: Watch,
): { readonly failure: Promise<never>; readonly end: () => void } {
  const over = new AbortController();
  const look = async (): Promise<never> => {
    const start = await activity();
    for (let [before, since] = [start, performance.now()]; ;) {
      await delay(Math.min(500, patience / 4), undefined, { signal: over.signal });
      const now = await activity();
      if (now !== before) [before, since] = [now, performance.now()];
      if (now !== undefined && start !== undefined) progress?.(now - start);
      if (performance.now() - since < patience) continue;
      throw new Failure(
        'deadline',
        `QEMU's ${kind} has made no progress for ${Math.round(patience / 1000)} s`,
        {
          hint: "look whether the host's disk hangs; what QEMU goes on with is seen by zfsdev snapshot list",
        },
      );
    }
  };
  const failure = look();
  // Ended from outside, it fails with nobody waiting for it.
  failure.catch(() => undefined);
  return { failure, end: () => over.abort() };
}
