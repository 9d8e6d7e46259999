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

/** A chain that is longer is one in a circle, or as good as one. */
const longestChain = 64;

/** Backing files, and what these stand on, that are counted nowhere else; each file once, whatever names lead to it. */
async function basesOf(ctx: Context, machines: readonly User[]): Promise<SharedUsage[]> {
  const counted = new Set(machines.flatMap(({ disks }) => disks.map(({ file }) => file)));
  const store = await Promise.all([ctx.paths.images, ctx.paths.warm].map(realFolder));
  const looked = new Map<string, DiskUsage>();
  const found = new Map<string, { disk: DiskUsage; users: Set<string> }>();
  for (const { name, disks } of machines) {
    for (const disk of disks) {
      let path = disk.backing;
      for (let depth = 0; path?.startsWith('/') && depth < longestChain; depth += 1) {
        const here = path;
        if (store.some((folder) => here.startsWith(folder))) break;
        const base: DiskUsage = looked.get(path) ?? (await lookAtDisk(path));
        looked.set(path, base);
        const { file } = base;
        if (file === undefined) break;
        if (!counted.has(file)) {
          const known = found.get(file) ?? { disk: base, users: new Set() };
          found.set(file, known);
          known.users.add(name);
        }
        path = base.backing;
      }
    }
  }
  return [...found.values()].map(({ disk, users }) => ({
    what: 'base' as const,
    key: disk.path,
    actual: disk.actual,
    usedBy: [...users],
  }));
}

/** With a slash behind it, links resolved as in the paths of backing files. */
async function realFolder(path: string): Promise<string> {
  return join(await realpath(path).catch(() => path), '/');
}
