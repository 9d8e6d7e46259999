import type { Context } from '../host/context.ts';
import type { Spec } from '../template/spec.ts';
import type { DiskDevice, StorageDevice } from '../template/storage.ts';
import type { Instance } from '../vm/instance.ts';
import type { State } from '../vm/state.ts';
import { writeSpec, writeState } from '../vm/store.ts';

/** Writes down a disk of a machine, in the place of one of its name or as the last one. */
export async function recordDisk(ctx: Context, instance: Instance, disk: DiskDevice): Promise<Instance> {
  const storage = instance.spec.storage ?? [];
  const known = storage.some(({ name }) => name === disk.name);
  const next = known ? storage.map((each) => (each.name === disk.name ? disk : each)) : [...storage, disk];
  return writeStorage(ctx, instance, next);
}

/** Forgets a disk of a machine. */
export async function forgetDisk(ctx: Context, instance: Instance, name: string): Promise<Instance> {
  const storage = (instance.spec.storage ?? []).filter((each) => each.name !== name);
  return writeStorage(ctx, instance, storage);
}

/** Replaces all of a machine's storage; the caller holds the instance's lock. */
export async function writeStorage(
  ctx: Context,
  instance: Instance,
  storage: readonly StorageDevice[],
): Promise<Instance> {
  const { storage: before = [], ...rest } = instance.spec;
  const spec: Spec = storage.length === 0 ? rest : { ...rest, storage };
  const { made } = instance.state;
  const state: State = { ...instance.state, made: { ...made, storage: made?.storage ?? [...before] } };
  if (made?.storage === undefined) await writeState(ctx, instance.name, state);
  await writeSpec(ctx, spec);
  return { ...instance, spec, state };
}

/** A disk as it is once it is plugged in. */
export function attached(disk: DiskDevice): DiskDevice {
  const { detached: unplugged, ...rest } = disk;
  return unplugged ? rest : disk;
}

/** A disk as it is once it is unplugged; where it was is where it goes again, so that saved memory fits then. */
export function detached(disk: DiskDevice): DiskDevice {
  return { ...disk, detached: true };
}
