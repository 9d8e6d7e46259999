import { statSync } from 'node:fs';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { isWithin, leadsTo } from '../host/system-folders.ts';
import { lockKey } from '../host/file-locks.ts';
import { readIfExists } from '../host/files.ts';
import { filesBehind } from '../qemu/backing-name.ts';
import { readDisk } from '../qemu/qcow2.ts';
import { parseSpec, type Spec } from '../template/spec.ts';
import { disksAmong } from '../template/storage.ts';
import { machineFiles } from './machine-files.ts';
import { placeOf } from './storage-places.ts';
import { instanceNames, readInstance } from './store.ts';

/** What a machine does with a file. */
export interface FileUse {
  /** As an error says it: `the disk "data" of "one"`. */
  readonly what: string;
  readonly path: string;
  readonly writes: boolean;
}

/** A chain that is longer is one in a circle, or as good as one. */
const longestChain = 64;

/** The files that a qcow2 stands on, nearest first; a file that can't be read ends the chain. */
export function backingChain(path: string): string[] {
  const chain: string[] = [];
  const wanted = backingFiles(path);
  for (let at = wanted.shift(); at !== undefined && chain.length < longestChain; at = wanted.shift()) {
    const place = leadsTo(at);
    if (chain.includes(place)) continue;
    chain.push(place);
    wanted.push(...backingFiles(at));
  }
  return chain;
}

/** What a disk itself says that it stands on. */
function backingFiles(path: string): string[] {
  try {
    const content = readDisk(path);
    const name = content.kind === 'qcow2' ? content.qcow2.backing : undefined;
    // Joined as it is: a `..` behind a link is what the link's target has above it.
    const files = name === undefined ? [] : filesBehind(name);
    return files.map((file) => (isAbsolute(file) ? file : `${dirname(leadsTo(path))}/${file}`));
  } catch {
    return [];
  }
}

/** What one machine's storage does with which files, as its spec says it, whether they are there or not. */
export function usesOfStorage(
  ctx: Pick<Context, 'paths'>,
  { name, storage }: Pick<Spec, 'name' | 'storage'>,
): FileUse[] {
  return disksAmong(storage).flatMap((disk) => {
    const path = placeOf(ctx, name, disk);
    const what = `the disk "${disk.name}" of "${name}"`;
    const bases = [
      ...(disk.backingFile === undefined ? [] : [disk.backingFile]),
      // What a raw disk holds is its guest's own, whatever it looks like.
      ...(disk.type === 'qcow2' ? backingChain(path) : []),
      ...(disk.backingFile !== undefined && disk.backingFormat !== 'raw'
        ? backingChain(disk.backingFile)
        : []),
    ];
    return [
      { what, path, writes: !disk.readonly },
      ...bases.map((base) => ({ what: `${what}, which stands on it`, path: base, writes: false })),
    ];
  });
}

/** What all machines, or all but one, do with which files. Damaged machines count with all that can be told of them. */
export async function usesOfOthers(ctx: Context, except?: InstanceName): Promise<FileUse[]> {
  const names = (await instanceNames(ctx)).filter((name) => name !== except);
  return (await Promise.all(names.map((name) => usesOfMachine(ctx, name)))).flat();
}

async function usesOfMachine(ctx: Context, name: InstanceName): Promise<FileUse[]> {
  const whole = ifWhole(() => readInstance(ctx, name));
  const spec = whole?.spec ?? ifWhole(() => parseSpec(readIfExists(ctx.paths.instance(name).spec) ?? ''));
  const files = await machineFiles(ctx, name, whole).catch(() => undefined);
  const [root = ctx.paths.instance(name).disk, ...further] = files?.disks ?? [];
  const what = `the disk of "${name}"`;
  return [
    ...usesOf(what, root),
    ...(spec ? usesOfStorage(ctx, { name, storage: spec.storage ?? [] }) : []),
    ...(whole ? [] : further.flatMap((path) => usesOf(`a disk of "${name}"`, path))),
  ];
}

function ifWhole<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/**
 * Which machines' disks stand on something in a folder, by the name of what lies there: by what the files themselves say, so that
 * damaged machines count, and disks of the user's that stand on something there.
 */
export async function machinesOn(ctx: Context, folder: string): Promise<Map<string, InstanceName[]>> {
  const place = leadsTo(folder);
  const found = new Map<string, InstanceName[]>();
  for (const name of await instanceNames(ctx)) {
    const inside = (await usesOfMachine(ctx, name))
      .map(({ path }) => relative(place, leadsTo(path)))
      .filter((path) => path !== '' && !path.startsWith('..'));
    for (const entry of new Set(inside.map((path) => path.split(sep)[0] ?? '')))
      found.set(entry, [...(found.get(entry) ?? []), name]);
  }
  return found;
}

/** Names by what they stand on, each once. */
export function withUsers(
  known: ReadonlyMap<string, readonly string[]>,
  more: ReadonlyMap<string, readonly string[]>,
): Map<string, string[]> {
  const keys = new Set([...known.keys(), ...more.keys()]);
  return new Map(
    [...keys].map((key) => [key, [...new Set([...(known.get(key) ?? []), ...(more.get(key) ?? [])])]]),
  );
}

/** Of a disk that is written to, and what it stands on; a raw one is never looked into. */
function usesOf(what: string, path: string): FileUse[] {
  const bases = path.endsWith('.raw') ? [] : backingChain(path);
  return [
    { what, path, writes: true },
    ...bases.map((base) => ({ what: `${what}, which stands on it`, path: base, writes: false })),
  ];
}

/**
 * The use among `others` that a new use of a file can't stand beside: whoever writes has the file for itself.
 */
export function clashOf(use: Omit<FileUse, 'what'>, others: readonly FileUse[]): FileUse | undefined {
  const place = leadsTo(use.path);
  const file = identityOf(place);
  return others.find((other) => {
    if (!use.writes && !other.writes) return false;
    const there = leadsTo(other.path);
    return there === place || (file !== undefined && identityOf(there) === file);
  });
}

/** What of zfsdev's own a path leads into, that no machine's storage may be or stand on. */
export function ownPlaceOf(
  { paths }: Pick<Context, 'paths'>,
  instance: InstanceName,
  path: string,
): string | undefined {
  const place = leadsTo(path);
  const own = leadsTo(paths.instance(instance).disks);
  if (isWithin(place, own)) return undefined;
  const { images, instances, warm, kernels, builds, keys, locks } = paths;
  const kinds: readonly [string, string][] = [
    [images, 'the images'],
    [warm, 'the warm machines'],
    [kernels, 'the kernels'],
    [builds, 'the builds'],
    [keys, 'the keys'],
    [locks, 'the locks'],
    [join(instances, instance), `"${instance}" itself`],
    [instances, 'other machines'],
  ];
  return kinds.find(([folder]) => isWithin(place, leadsTo(folder)))?.[1];
}

function identityOf(path: string): string | undefined {
  try {
    return lockKey(statSync(path));
  } catch {
    return undefined;
  }
}
