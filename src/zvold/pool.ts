import { ZvolError } from './errors.ts';
import { ownFolder } from './inventory.ts';
import { lockOf, refuseFor, requirePool, type Keeper } from './keeper.ts';
import type { Pool } from './model.ts';

/** What the pool has: as its datasets see it, so that redundancy and what ZFS keeps for itself are no part of it. */
export async function readPool(keeper: Keeper): Promise<Pool> {
  await requirePool(keeper);
  const { zfs, pool } = keeper;
  const [[pools = []], [root = []], provisioned] = await Promise.all([
    zfs.ask('zpool', 'list', '-Hp', '-o', 'health,fragmentation', pool),
    zfs.ask('zfs', 'list', '-Hp', '-o', 'used,available,compressratio', pool),
    sizesOf(keeper),
  ]);
  const [used = 0, free = 0, compressionRatio = 1] = root.map(Number);
  return {
    name: pool,
    size: used + free,
    free,
    allocated: used,
    provisioned,
    compressionRatio,
    health: pools[0] ?? '',
    // "-" on a pool that can't tell.
    fragmentation: Number(pools[1]) || 0,
  };
}

/** Bytes of all volumes together; zvold's own zvols are promised to nobody. */
async function sizesOf({ zfs, pool }: Keeper): Promise<number> {
  let sum = 0;
  const columns = ['-o', 'name,volsize'];
  await zfs.survey(['zfs', 'list', '-Hp', '-r', '-t', 'volume', ...columns, pool], ([name, size]) => {
    if (!name?.startsWith(`${pool}/${ownFolder}/`)) sum += Number(size);
  });
  return sum;
}

/** What is recommended for volumes on disks with blocks of 4 KiB: the seeds' settings. */
const poolOptions = ['-o', 'ashift=12', '-o', 'autotrim=on'];
const recommended = { compression: 'lz4', xattr: 'sa', atime: 'off' };

/**
 * Creates the pool that this daemon manages.
 * @param vdevs words as zpool create takes them.
 * @throws ZvolError `ALREADY_EXISTS`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION` for a device that is used
 */
export async function createPool(
  keeper: Keeper,
  vdevs: readonly string[],
  properties: Readonly<Record<string, string>>,
): Promise<Pool> {
  const { zfs, pool, machine, locks } = keeper;
  const wrong = vdevs.find((word) => !/^(\/[\w./:-]+|[a-z][a-z0-9]*)$/.test(word));
  if (vdevs.length === 0 || wrong !== undefined)
    throw new ZvolError(
      'INVALID_ARGUMENT',
      vdevs.length === 0
        ? 'no devices were named'
        : `"${wrong ?? ''}" is neither a device nor a word of zpool create`,
    );
  for (const [key, value] of Object.entries(properties))
    if (!/^[a-z][a-z0-9_:.-]*$/.test(key) || !/^[\w.:/-]+$/.test(value))
      throw new ZvolError('INVALID_ARGUMENT', `${key}=${value} is no property of a file system`);
  return locks.holding([lockOf.pool], async () => {
    if ((await machine.poolState(pool)) !== undefined)
      throw new ZvolError('ALREADY_EXISTS', `there is a pool ${pool}`);
    for (const device of vdevs.filter((word) => word.startsWith('/')))
      refuseFor(`the device ${device} is in use`, await machine.usersOf(device));
    const options = Object.entries({ ...recommended, ...properties }).flatMap(([key, value]) => [
      '-O',
      `${key}=${value}`,
    ]);
    // Never -f: what ZFS finds on a device may be somebody's.
    await zfs.change('zpool', 'create', ...poolOptions, ...options, pool, ...vdevs);
    return readPool(keeper);
  });
}
