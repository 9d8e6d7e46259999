import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { Instance } from '../vm/instance.ts';
import { driverOf } from '../vm/drivers.ts';

/** Where a guest has the disk whose name, which is its serial number, is the first argument. */
const links = '/dev/disk/by-id/virtio-"$1" /dev/disk/by-id/ata-*_"$1" /dev/disk/by-id/scsi-*_"$1"';

/** What uses a disk, a line each. */
const users = `
for link in ${links}; do
  [ -b "$link" ] || continue
  device=$(readlink -f "$link")
  own="^$device(p?[0-9]+)?$"
  awk -v own="$own" '$1 ~ own { print "it is mounted at " $2 }' /proc/self/mounts
  awk -v own="$own" '$1 ~ own { print "it is swap" }' /proc/swaps
  for holder in /sys/class/block/"\${device##*/}"*/holders/*; do
    if [ -e "$holder" ]; then echo "\${holder##*/} stands on it"; fi
  done
  if command -v zpool >/dev/null; then
    zpool status -LP 2>/dev/null | awk -v own="$own" '$1 == "pool:" { pool = $2 } $1 ~ own { print "the pool " pool " stands on it" }'
  fi
done | sort -u`;

/** Ends once the disk is there by its name, with 1 if it doesn't come. */
const arrival = `
for try in $(seq 100); do
  for link in ${links}; do
    if [ -b "$link" ]; then exit 0; fi
  done
  sleep 0.1
done
exit 1`;

/** Milliseconds for a question, and for a disk to be seen: an emulated guest takes a second or two. */
const patience = 20_000;
const longestArrival = 60_000;

/**
 * Waits until the guest shows a disk that was plugged in by its name, which is a moment after QEMU has it. One that doesn't, or
 * that can't be asked, has the disk all the same.
 * @returns false then
 */
export async function isSeen(ctx: Context, instance: Instance, disk: string): Promise<boolean> {
  try {
    const channel = driverOf(ctx, instance).channel(instance);
    const options = { deadline: longestArrival, signal: ctx.signal };
    return (await channel.exec(['sh', '-c', arrival, 'sh', disk], options)).exitCode === 0;
  } catch (error) {
    if (!(error instanceof Failure) || error.reason === 'interrupted') throw error;
    return false;
  }
}

/**
 * A guest lets go of a disk that is mounted without a word, and what it had not written yet is lost: so it is asked first.
 * @throws Failure `wrong-state` that names what uses the disk, `guest` if the guest can't be asked
 */
export async function refuseUsed(ctx: Context, instance: Instance, disk: string): Promise<void> {
  const force = 'or with --force, which loses what was not written yet';
  const uses = await driverOf(ctx, instance)
    .channel(instance)
    .exec(['sh', '-c', users, 'sh', disk], { deadline: patience, signal: ctx.signal })
    .catch((error: unknown) => {
      if (!(error instanceof Failure) || error.reason === 'interrupted') throw error;
      throw new Failure('guest', `the guest can't be asked whether it uses "${disk}": ${error.message}`, {
        hint: `zfsdev stop ${instance.name} first; ${force}`,
        cause: error,
      });
    });
  const found = uses.stdout.split('\n').filter((line) => line !== '');
  if (found.length === 0) return;
  throw new Failure('wrong-state', `"${disk}" is in use in "${instance.name}": ${found.join('; ')}`, {
    hint: `unmount it there first (umount, swapoff, zpool export): zfsdev exec ${instance.name} -- COMMAND\n${force}`,
    data: { name: instance.name, disk, users: found },
  });
}
