import { formatBytes } from '../core/bytes.ts';
import { listKernels, removeKernel, resolveKernel, type StoredKernel } from '../image/kernel-store.ts';
import { table } from '../ui/table.ts';
import { addKernel, kernelUsers } from '../vm/kernel.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface KernelOptions extends GlobalOptions {
  readonly overcommit?: boolean;
}

/** `zfsdev kernel list`. */
export async function list(session: Session): Promise<void> {
  const { ctx } = session;
  const [found, users] = await Promise.all([listKernels(ctx.paths), kernelUsers(ctx)]);
  const of = (each: StoredKernel): string[] => users.get(each.digest) ?? [];
  await session.answer({ kernels: found.map((each) => document(each, of(each))) }, () =>
    found.length === 0
      ? 'There are no kernels yet. zfsdev build-kernel makes one; up --kernel FILE takes it in.\n'
      : `${table(
          columns,
          found.map((each) => row(session, each, of(each))),
          session.width,
        )}\n`,
  );
}

/** `zfsdev kernel add`. */
export async function add(session: Session, file: string, options: KernelOptions): Promise<void> {
  const { ctx } = session;
  if (ctx.dryRun) return ctx.emit({ type: 'would', text: `take in the kernel ${file}` });
  const { digest } = await addKernel(ctx, file, options.overcommit === true);
  await inspect(session, digest);
}

/** `zfsdev kernel inspect`. */
export async function inspect(session: Session, word: string): Promise<void> {
  const { ctx } = session;
  const stored = await resolveKernel(ctx.paths, word);
  const users = (await kernelUsers(ctx)).get(stored.digest) ?? [];
  await session.answer(document(stored, users), () => text(session, stored, users));
}

/** `zfsdev kernel remove`. */
export async function remove(session: Session, word: string): Promise<void> {
  const { ctx } = session;
  const stored = await resolveKernel(ctx.paths, word);
  if (ctx.dryRun) return ctx.emit({ type: 'would', text: `remove the kernel ${stored.digest}` });
  await removeKernel(ctx.paths, stored, (await kernelUsers(ctx)).get(stored.digest) ?? []);
  await session.answer(
    { removed: [stored.digest], freedBytes: stored.actual },
    () => `removed ${stored.digest.slice(0, 12)}, ${formatBytes(stored.actual)} freed\n`,
  );
}

const columns = [
  { title: 'DIGEST' },
  { title: 'RELEASE', flexible: true },
  { title: 'OPENZFS', optional: 2, flexible: true },
  { title: 'CONFIG', optional: 3, flexible: true },
  { title: 'ACTUAL', align: 'right' },
  { title: 'USED BY', optional: 1, flexible: true },
] as const;

function row({ paint }: Session, stored: StoredKernel, users: readonly string[]): string[] {
  const [digest, actual] = [stored.digest.slice(0, 12), formatBytes(stored.actual)];
  const usedBy = users.join(', ') || '-';
  if (stored.state === 'broken')
    return [digest, `${paint('bad', 'broken')}: ${stored.reason}`, '-', '-', actual, usedBy];
  const { release, zfs, config } = stored.kernel.manifest;
  return [digest, release, zfs || '-', config, actual, usedBy];
}

function document(stored: StoredKernel, usedBy: readonly string[]): object {
  const common = { digest: stored.digest, state: stored.state, actualBytes: stored.actual, usedBy };
  return stored.state === 'whole'
    ? { ...common, folder: stored.kernel.folder, ...stored.kernel.manifest }
    : { ...common, reason: stored.reason };
}

function text({ paint }: Session, stored: StoredKernel, users: readonly string[]): string {
  const rows: [string, string][] = [
    ['digest', stored.digest],
    ['actual', formatBytes(stored.actual)],
    ['used by', users.join(', ') || 'no instance'],
  ];
  if (stored.state === 'broken') rows.push(['state', `${paint('bad', 'broken')}: ${stored.reason}`]);
  else {
    const { release, architecture, source, config, zfs, compiler, peakBytes, built } = stored.kernel.manifest;
    rows.push(['release', `${release}, ${architecture}`], ['source', source], ['config', config]);
    rows.push(['openzfs', zfs || 'none'], ['compiler', compiler], ['built', built]);
    rows.push(['peak', `${formatBytes(peakBytes)} while it was built`], ['folder', stored.kernel.folder]);
  }
  return rows.map(([key, value]) => `${key.padEnd(12)}${value}\n`).join('');
}
