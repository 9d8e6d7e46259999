import { isDeepStrictEqual } from 'node:util';
import type { Context } from '../host/context.ts';
import type { Spec } from '../template/spec.ts';
import type { DiskDevice, StorageDevice } from '../template/storage.ts';
import type { Instance } from '../vm/instance.ts';
import type { State } from '../vm/state.ts';
import { placeOf } from '../vm/storage-places.ts';
import { writeSpec, writeState } from '../vm/store.ts';

/** Writes down a disk of a machine, in the place of one of its name or as the last one. */
export async function recordDisk(ctx: Context, instance: Instance, disk: DiskDevice): Promise<Instance> {
  const storage = instance.spec.storage ?? [];
  const known = storage.some(({ name }) => name === disk.name);
  const next = known ? storage.map((each) => (each.name === disk.name ? disk : each)) : [...storage, disk];
  return writeStorage(ctx, instance, next, disk);
}

/** Forgets a disk of a machine. */
export async function forgetDisk(ctx: Context, instance: Instance, name: string): Promise<Instance> {
  const storage = (instance.spec.storage ?? []).filter((each) => each.name !== name);
  return writeStorage(ctx, instance, storage);
}

/**
 * Replaces all of a machine's storage; the caller holds the instance's lock.
 * @param changed the disk that it is about: once it is attached, its file is there, and is expected there from then on
 */
export async function writeStorage(
  ctx: Context,
  instance: Instance,
  storage: readonly StorageDevice[],
  changed?: DiskDevice,
): Promise<Instance> {
  const { storage: before = [], ...rest } = instance.spec;
  const spec: Spec = storage.length === 0 ? rest : { ...rest, storage };
  const state = stateAfter(ctx, instance, before, storage, changed);
  if (!isDeepStrictEqual(state, instance.state)) await writeState(ctx, instance.name, state);
  await writeSpec(ctx, spec);
  return { ...instance, spec, state };
}

function stateAfter(
  ctx: Context,
  { name: machine, state }: Instance,
  before: readonly StorageDevice[],
  after: readonly StorageDevice[],
  changed: DiskDevice | undefined,
): State {
  const { storage: places = {}, ...rest } = state;
  const made = { ...state.made, storage: state.made?.storage ?? [...before] };
  const kept = Object.entries(places).filter(([name]) => after.some((each) => each.name === name));
  const isThere = changed !== undefined && changed.detached !== true;
  const own = isThere ? [[changed.name, placeOf(ctx, machine, changed)] as const] : [];
  const known = Object.fromEntries([...kept, ...own]);
  return { ...rest, made, ...(Object.keys(known).length === 0 ? {} : { storage: known }) };
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
