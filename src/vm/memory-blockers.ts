import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { printable } from '../host/run.ts';
import { connectQmp } from '../qemu/qmp.ts';
import { attachedStorage, disksAmong, sharesAmong } from '../template/storage.ts';
import { requireRecorded } from './disk-plan.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';

/**
 * Looks whether a machine's memory can be saved beside its storage, before the guest is asked for anything.
 * @throws Failure `unsupported` that names what is in the way, and the snapshot that can be taken instead
 */
export async function checkMemory(
  ctx: Context,
  { instance, running }: SnapshotMachine,
  snapshot: string,
  memory: boolean,
): Promise<void> {
  if (!memory || !running) return;
  const { name, spec } = instance;
  if (spec.storage === undefined) return;
  const refuse = (why: string, other: string, detail?: string): Failure =>
    new Failure('unsupported', `the memory of "${name}" can't be saved: ${why}`, {
      hint: `${other}\nof its disks alone, while it runs: ${printable(['zfsdev', 'snapshot', 'create', name, snapshot, '--live'])}`,
      ...(detail === undefined ? {} : { detail }),
    });
  // Its content would be of now and the guest's memory of then, and what the guest wrote next would be of both.
  const raw = disksAmong(attachedStorage(spec.storage)).find(
    (disk) => disk.type === 'raw' && !disk.readonly && disk.interface !== 'none',
  );
  if (raw) {
    throw refuse(
      `its disk "${raw.name}" is raw, and could not be taken back with it`,
      'as a qcow2, or with readonly: true, it could stay',
    );
  }
  const shared = sharesAmong(spec.storage).find(({ protocol }) => protocol === 'virtiofs');
  if (shared) {
    throw refuse(
      `its share "${shared.name}" goes by virtiofs`,
      'with protocol: 9p it can be saved while it is not mounted',
    );
  }
  const blockers = await blockersOf(ctx, instance);
  if (blockers.length === 0) return;
  const mounted = sharesAmong(spec.storage).map(({ mountAt }) => mountAt);
  const umount = printable(['zfsdev', 'exec', name, '--', 'umount', ...mounted]);
  throw refuse(
    mounted.length > 0 ? 'a share is mounted in it' : 'QEMU says why',
    mounted.length > 0 ? `once it is not: ${umount}` : 'QEMU names the device',
    blockers.join('\n'),
  );
}

async function blockersOf(ctx: Context, instance: SnapshotMachine['instance']): Promise<readonly string[]> {
  const qmp = await connectQmp(ctx.paths.instance(instance.name).qmp, {
    deadline: deadlineIn(180_000),
    signal: ctx.signal,
  });
  try {
    await requireRecorded(ctx, qmp, instance);
    return (await qmp.execute('query-migrate'))['blocked-reasons'] ?? [];
  } finally {
    qmp.close();
  }
}
