import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { filesystemOf, type HostFilesystem } from '../host/free-space.ts';
import { actualSize } from '../host/files.ts';
import { listImages } from '../image/store.ts';
import { storedData } from '../qemu/img.ts';
import type { PoolSpec } from '../template/spec.ts';
import { pauseOf, pauseWords } from '../vm/pause.ts';
import { imageUsers } from '../vm/images.ts';
import type { Status } from '../vm/instance.ts';
import { inspect, instanceNames } from '../vm/store.ts';
import { listWarm, warmUsers } from '../vm/warm-store.ts';
import { lookAtDisk, type DiskUsage } from './disk.ts';
import { askGuestUsage, type GuestUsage } from './guest-usage.ts';
import { limaHome, limaInstances } from '../lima/folder.ts';

/** What one machine takes on the host. All sizes in bytes. */
export interface MachineUsage {
  readonly name: string;
  readonly driver: 'qemu' | 'lima';
  readonly status: Status;
  readonly disks: readonly DiskUsage[];
  /** Everything else in its folder: initrd, logs. */
  readonly other: number;
  readonly guest?: GuestUsage;
  /** What can be had back, as far as it can be told without doing it; `trim` is an upper bound. */
  readonly reclaim: { readonly trim?: number; readonly clean?: number };
  readonly problem?: string;
}

/** What machines stand on, counted once however many they are. */
export interface SharedUsage {
  readonly what: 'image' | 'warm';
  readonly key: string;
  readonly actual: number;
  readonly usedBy: readonly string[];
}

export interface Usage {
  readonly machines: readonly MachineUsage[];
  readonly shared: readonly SharedUsage[];
  /** The host's filesystems that any of it lies on. */
  readonly filesystems: readonly HostFilesystem[];
}

export interface UsageQuestion {
  /** All that there are if empty. */
  readonly names: readonly string[];
  /** Lima instances that zfsdev did not make as well. */
  readonly all: boolean;
}

/** Looks at every machine once. @throws Failure `not-found` for a name that nothing has. */
export async function surveyUsage(ctx: Context, { names, all }: UsageQuestion): Promise<Usage> {
  const wanted = (name: string): boolean => names.length === 0 || names.includes(name);
  const own = (await instanceNames(ctx)).filter(wanted);
  const foreign =
    all || names.length > 0
      ? (await limaInstances(limaHome(ctx.env))).filter(({ name }) => wanted(name))
      : [];
  const missing = names.find(
    (name) => !own.some((each) => each === name) && !foreign.some((each) => each.name === name),
  );
  if (missing !== undefined) {
    throw new Failure('not-found', `there is no instance "${missing}"`, {
      hint: 'zfsdev usage --all shows all there are',
    });
  }
  const machines = await Promise.all([
    ...own.map((name) => ownMachine(ctx, name)),
    ...foreign.map(async ({ name, folder, running, disks }): Promise<MachineUsage> => ({
      name,
      driver: 'lima',
      status: running ? 'running' : 'stopped',
      ...(await filesOf(folder, disks)),
      reclaim: {},
    })),
  ]);
  const shared = names.length === 0 ? await sharedUsage(ctx) : [];
  return {
    machines: machines.filter((machine) => machine !== undefined),
    shared,
    filesystems: await filesystems(ctx, machines),
  };
}

async function ownMachine(
  ctx: Context,
  name: Parameters<typeof inspect>[1],
): Promise<MachineUsage | undefined> {
  const found = await inspect(ctx, name);
  if (!found) return undefined;
  const { folder, disk } = ctx.paths.instance(name);
  const files = await filesOf(folder, [disk]);
  const common: MachineUsage = {
    name,
    driver: found.instance?.state.driver ?? 'qemu',
    status: found.status,
    ...files,
    reclaim: {},
  };
  if (found.status === 'broken') return { ...common, problem: found.reason };
  if (found.status !== 'running') return common;
  const pause = await pauseOf(ctx, found);
  if (pause) return { ...common, problem: `stands still: ${pauseWords[pause]}; zfsdev resume ${name}` };
  try {
    const [guest, stored] = await Promise.all([askGuestUsage(ctx, found.instance), storedData(ctx, disk)]);
    const clean = Object.values(guest.cleanable).reduce((sum, size) => sum + size, 0);
    return { ...common, guest, reclaim: { clean, trim: trimmable(guest, stored, found.instance.spec.pool) } };
  } catch (error) {
    return { ...common, problem: `the guest can't be asked: ${messageOf(error)}` };
  }
}

/**
 * What the disk holds beyond what the guest uses, as far as that lies in its own overlay: beyond what its file system says,
 * and beyond what the pool says of the files that it lies on (each of a mirror holds all of it).
 */
function trimmable(
  { rootUsed, pools, poolFiles }: GuestUsage,
  stored: { readonly own: number; readonly visible: number },
  pool: PoolSpec | undefined,
): number {
  const allocated = pools.find(({ name }) => name === pool?.name)?.allocated ?? 0;
  const ofPool = pool ? Math.max(0, poolFiles - allocated * pool.fileCount) : 0;
  return Math.min(stored.own, Math.max(0, stored.visible - rootUsed) + ofPool);
}

async function filesOf(
  folder: string,
  paths: readonly string[],
): Promise<{ disks: DiskUsage[]; other: number }> {
  const disks = await Promise.all(paths.map(lookAtDisk));
  const names = await readdir(folder).catch(() => []);
  const sizes = await Promise.all(
    names
      .map((name) => join(folder, name))
      .filter((path) => !paths.includes(path))
      .map(actualSize),
  );
  return { disks, other: sizes.reduce((sum, size) => sum + size, 0) };
}

async function sharedUsage(ctx: Context): Promise<SharedUsage[]> {
  const [images, warm, ofImage, ofWarm] = await Promise.all([
    listImages(ctx.paths.images),
    listWarm(ctx),
    imageUsers(ctx),
    warmUsers(ctx),
  ]);
  return [
    ...images.map(({ digest, actual }) => ({
      what: 'image' as const,
      key: digest,
      actual,
      usedBy: ofImage.get(digest) ?? [],
    })),
    ...warm.map(({ key, actual }) => ({ what: 'warm' as const, key, actual, usedBy: ofWarm.get(key) ?? [] })),
  ];
}

async function filesystems(
  ctx: Context,
  machines: readonly (MachineUsage | undefined)[],
): Promise<HostFilesystem[]> {
  const folders = new Set([ctx.paths.home]);
  for (const machine of machines)
    for (const { path } of machine?.disks ?? []) folders.add(join(path, '..', '..'));
  const found = await Promise.all([...folders].map(filesystemOf));
  return [...new Map(found.map((filesystem) => [filesystem.device, filesystem])).values()];
}
