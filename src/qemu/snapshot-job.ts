import { Failure } from '../core/errors.ts';
import type { JobInfo, Qmp } from './qmp.ts';
import { clockOf, unlessStalled, unlimited, type Watch } from './stall.ts';

/** What one of QEMU's snapshot jobs is about. */
export interface SnapshotTask {
  readonly tag: string;
  /** Names of the nodes of all disks of the set. */
  readonly devices: readonly string[];
  /** The node of the one that holds the memory. */
  readonly vmstate: string;
}

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
  const common = { 'job-id': id, tag, devices };
  const cancel = (): void => void qmp.execute('job-cancel', { id }, unlimited).catch(() => undefined);
  watch.signal.addEventListener('abort', cancel, { once: true });
  try {
    await unlessStalled(`QEMU's ${kind}`, watch, async () => {
      await dismissOld(qmp);
      if (kind === 'snapshot-delete') await qmp.execute(kind, common, unlimited);
      else await qmp.execute(kind, { ...common, vmstate }, unlimited);
      await concluded(qmp, kind, watch);
    });
  } finally {
    watch.signal.removeEventListener('abort', cancel);
  }
  if (watch.signal.aborted) throw new Failure('interrupted', `interrupted during ${kind}`);
}

/** Waits for the end of a job, which is the only place where a failure of it shows. */
async function concluded(qmp: Qmp, kind: string, watch: Watch): Promise<void> {
  const job = await endOfJob(qmp, watch);
  if (!job) throw new Failure('process', `QEMU has lost its job ${kind}`);
  await qmp.execute('job-dismiss', { id }, unlimited);
  if (job.error === undefined) return;
  throw new Failure('process', `QEMU's ${kind} failed: ${job.error}`, {
    data: { job: kind, error: job.error },
  });
}

async function endOfJob(qmp: Qmp, watch: Watch): Promise<JobInfo | undefined> {
  for (let pause = 5; ; pause = Math.min(pause * 1.5, 200)) {
    const job = (await qmp.execute('query-jobs', undefined, unlimited)).find((one) => one.id === id);
    if (!job || job.status === 'concluded') return job;
    await clockOf(watch).wait(pause);
  }
}

/**
 * Waits for the end of a job that a zfsdev which was killed has left; undefined if there is none. Its outcome stays QEMU's until
 * the next job.
 * @throws Failure `deadline`, `process`
 */
export function jobLeft(qmp: Qmp, watch: Watch): Promise<JobInfo | undefined> {
  return unlessStalled("QEMU's snapshot job", watch, () => endOfJob(qmp, watch));
}

/** A zfsdev that was killed can't have dismissed its job, which QEMU keeps until somebody does. */
async function dismissOld(qmp: Qmp): Promise<void> {
  const left = await qmp.execute('query-jobs', undefined, unlimited);
  for (const job of left)
    if (job.id === id && job.status === 'concluded') await qmp.execute('job-dismiss', { id }, unlimited);
}
