import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { Channel } from '../guest/channel.ts';
import type { Context } from '../host/context.ts';
import { actualSize } from '../host/files.ts';
import type { Spec } from '../template/spec.ts';
import { disksAmong } from '../template/storage.ts';
import { machineFiles } from '../vm/machine-files.ts';
import { channelTo } from '../vm/lifecycle.ts';
import { requireInstance } from '../vm/store.ts';
import type { Reclaimed } from './compact.ts';
import { cleanable, poolFiles, type CleanableKind } from './guest-usage.ts';

/** A guest frees gigabytes at some hundred megabytes a second; emulated ones are slower. */
const patience = 1_800_000;

/**
 * ZFS frees blocks for good only two transaction groups after they were deleted, and trims one metaslab after the other.
 * So the pool is made to go through transaction groups as long as its files get smaller, before the manual trim, which
 * throws away what is noted for the automatic one and has gaps of its own (see provision/pool.sh).
 */
const trimPool = `
pool=$1 quiet=0 least=
taken() { du -ck ${poolFiles} 2>/dev/null | tail -n 1 | cut -f 1; }
# What was deleted just now counts as allocated until it is written down.
zpool sync "$pool" && zpool sync "$pool" || exit
# Each file of a mirror holds what is allocated. What going through transaction groups writes is more than the rest then.
needed=$(($(zpool list -Hp -o allocated "$pool") / 1024 * $(ls ${poolFiles} 2>/dev/null | wc -l)))
if [ $(($(taken) - needed)) -lt 24576 ]; then exit 0; fi
while [ "$(zpool get -H -o value autotrim "$pool")" = on ] && [ "$quiet" -lt 6 ]; do
  zpool sync -f "$pool" || exit
  now=$(taken)
  if [ -z "$least" ] || [ "$now" -lt $((least - 256)) ]; then quiet=0 least=$now; else quiet=$((quiet + 1)); fi
done
zpool trim -w "$pool"`;

/**
 * Has a running guest tell its disk what it no longer uses: pools first, as their files lie in the root file system.
 * @throws Failure `wrong-state` unless it runs, `guest` in the guest's words.
 */
export async function trimGuest(ctx: Context, name: InstanceName): Promise<Reclaimed> {
  return measured(ctx, name, (channel, spec) => trim(ctx, channel, spec));
}

/** Removes packages' archives, kernel sources and old logs in a running guest, except for `keep`, and trims. */
export async function cleanGuest(
  ctx: Context,
  name: InstanceName,
  keep: readonly CleanableKind[],
): Promise<Reclaimed> {
  return measured(ctx, name, async (channel, spec) => {
    const kinds = (Object.keys(cleanable) as CleanableKind[]).filter((kind) => !keep.includes(kind));
    await step(ctx.emit, 'clean', 'Removing what the guest can do without', () =>
      inGuest(ctx, channel, `rm -rf ${kinds.map((kind) => cleanable[kind]).join(' ')}`),
    );
    await trim(ctx, channel, spec);
  });
}

/** What lies on the disks of a machine's storage, whoever put it there: pools, and file systems that are mounted. */
const trimStorage = `
own=$1
if command -v zpool >/dev/null; then
  for pool in $(zpool list -H -o name); do
    [ "$pool" = "$own" ] || { zpool sync "$pool" && zpool trim -w "$pool"; }
  done
fi
# Of several kinds of file systems some can't: a share, or a disk with discard off.
fstrim --all --quiet-unsupported || :`;

async function trim(ctx: Context, channel: Channel, { pool, storage }: Spec): Promise<void> {
  if (pool !== undefined) {
    await step(ctx.emit, 'trim', `Trimming the pool ${pool.name}`, () =>
      inGuest(ctx, channel, trimPool, pool.name),
    );
  }
  await step(ctx.emit, 'trim', 'Trimming the root file system', () =>
    inGuest(ctx, channel, 'sync && fstrim /'),
  );
  if (!disksAmong(storage).some(({ readonly }) => !readonly)) return;
  await step(ctx.emit, 'trim', 'Trimming its storage', () =>
    inGuest(ctx, channel, trimStorage, pool?.name ?? ''),
  );
}

async function measured(
  ctx: Context,
  name: InstanceName,
  work: (channel: Channel, spec: Spec) => Promise<void>,
): Promise<Reclaimed> {
  const found = await requireInstance(ctx, name);
  const channel = await channelTo(ctx, name);
  if (!found.instance) throw new Failure('wrong-state', `"${name}" is broken`);
  const { disks } = await machineFiles(ctx, name, found.instance);
  const size = (): number => disks.reduce((sum, disk) => sum + actualSize(disk), 0);
  const before = size();
  await work(channel, found.instance.spec);
  return { name, before, after: size() };
}

async function inGuest(ctx: Context, channel: Channel, script: string, ...args: string[]): Promise<void> {
  const { exitCode, stdout, stderr } = await channel.exec(['sh', '-c', script, 'sh', ...args], {
    deadline: patience,
    signal: ctx.signal,
  });
  if (exitCode === 0) return;
  throw new Failure('guest', `the guest could not do it: exit code ${exitCode}`, {
    detail: `${script}\n${(stdout + stderr).trim()}`,
  });
}
