import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../host/context.ts';
import { listKernels } from '../image/kernel-store.ts';
import { listImages } from '../image/store.ts';
import { groupKernelUsers } from '../vm/kernel.ts';
import { groupImageUsers } from '../vm/images.ts';
import type { Instance } from '../vm/instance.ts';
import { groupWarmUsers, listWarm } from '../vm/warm-store.ts';
import { lookAtDisk, type DiskUsage } from './disk.ts';

/** What machines stand on, counted once however many they are. */
export interface SharedUsage {
  /** `base` is a backing file outside the state home and of no machine's own. */
  readonly what: 'image' | 'warm' | 'kernel' | 'base';
  /** The digest or key; the path of a base. */
  readonly key: string;
  readonly actual: number;
  readonly usedBy: readonly string[];
}

interface User {
  readonly name: string;
  readonly disks: readonly DiskUsage[];
}

/** Images, warm states, kernels, and all other backing files of these machines; `instances` are all there are. */
export async function sharedUsage(
  ctx: Context,
  machines: readonly User[],
  instances: readonly Instance[],
): Promise<SharedUsage[]> {
  const [images, warm, kernels, bases] = await Promise.all([
    listImages(ctx.paths.images),
    listWarm(ctx),
    listKernels(ctx.paths),
    basesOf(ctx, machines),
  ]);
  const [ofImage, ofWarm] = [groupImageUsers(instances, warm), groupWarmUsers(instances)];
  const ofKernel = groupKernelUsers(instances);
  return [
    ...images.map(({ digest, actual }) => ({
      what: 'image' as const,
      key: digest,
      actual,
      usedBy: ofImage.get(digest) ?? [],
    })),
    ...warm.map(({ key, actual }) => ({ what: 'warm' as const, key, actual, usedBy: ofWarm.get(key) ?? [] })),
    ...kernels.map(({ digest, actual }) => ({
      what: 'kernel' as const,
      key: digest,
      actual,
      usedBy: ofKernel.get(digest) ?? [],
    })),
    ...bases,
  ];
}

/** Backing files, and what these stand on, that are counted nowhere else; each file once, whatever names lead to it. */
async function basesOf(ctx: Context, machines: readonly User[]): Promise<SharedUsage[]> {
  const counted = new Set(machines.flatMap(({ disks }) => disks.map(({ file }) => file)));
  const walk = await walkerOf(ctx);
  const found = new Map<string, { disk: DiskUsage; users: Set<string> }>();
  for (const { name, disks } of machines) {
    for (const disk of await walk(disks)) {
      if (disk.file === undefined || counted.has(disk.file)) continue;
      const known = found.get(disk.file) ?? { disk, users: new Set() };
      found.set(disk.file, known);
      known.users.add(name);
    }
  }
  return [...found.values()].map(({ disk, users }) => ({
    what: 'base' as const,
    key: disk.path,
    actual: disk.actual,
    usedBy: [...users],
  }));
}

/** What disks stand on, outside the state home's own stores; each file is looked at once, however many stand on it. */
async function walkerOf(ctx: Context): Promise<(disks: readonly DiskUsage[]) => Promise<Set<DiskUsage>>> {
  const stores = await Promise.all([ctx.paths.images, ctx.paths.warm].map(realFolder));
  const looked = new Map<string, Promise<DiskUsage>>();
  const lookOnce = (path: string): Promise<DiskUsage> => {
    const look = looked.get(path) ?? lookAtDisk(path);
    looked.set(path, look);
    return look;
  };
  return async (disks) => {
    const bases = new Set<DiskUsage>();
    const wanted = [...disks];
    for (let at = wanted.shift(); at !== undefined; at = wanted.shift()) {
      for (const path of [at.backing, ...(at.further ?? [])]) {
        if (!path?.startsWith('/') || stores.some((folder) => path.startsWith(folder))) continue;
        const base = await lookOnce(path);
        // What was come by before is in a circle, or the common base of several.
        if (!bases.has(base)) wanted.push(base);
        bases.add(base);
      }
    }
    return bases;
  };
}

/** With a slash behind it, links resolved as in the paths of backing files. */
async function realFolder(path: string): Promise<string> {
  return join(await realpath(path).catch(() => path), '/');
}
