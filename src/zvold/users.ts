import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { wordsOf, ZvolError } from './errors.ts';

/** Where the kernel tells what is done with devices; the tests have folders of their own. */
export interface Kernel {
  readonly proc: string;
  readonly sys: string;
}

const running: Kernel = { proc: '/proc', sys: '/sys' };

/** Programs of udev's that look at every device that comes, and are through in a moment. */
const lookers = new Set(['(udev-worker)', 'systemd-udevd', 'zvol_id', 'blkid']);

/** What the kernel says of files of its own whose process or device is gone, or on its way. */
const goneCodes = new Set(['ENOENT', 'ENOTDIR', 'ESRCH', 'EINVAL', 'ENODEV', 'ENXIO']);

/** For what need not be there, or has gone meanwhile. @throws ZvolError `UNAVAILABLE` for what can't be looked at */
async function orElse<T>(work: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (typeof code === 'string' && goneCodes.has(code)) return otherwise;
    throw new ZvolError('UNAVAILABLE', `who uses a device can't be looked at: ${wordsOf(error)}`, error);
  }
}

/**
 * What the kernel keeps a device, or a partition of it, for: mounts in this and in init's view of the files, swap, devices that
 * stand on it (LVM, RAID, dm-crypt), loop devices.
 * @returns words, each with who; none if there is no such device. @throws ZvolError `UNAVAILABLE` if that can't be told
 */
export async function claimsOf(path: string, kernel: Kernel = running): Promise<string[]> {
  const device = await orElse(realpath(path), undefined);
  if (device === undefined) return [];
  const [mounts, swaps, holders, loops] = await Promise.all([
    mountsOf(device, ['self', '1'], kernel),
    swapsOf(device, kernel),
    holdersOf(device, kernel),
    loopsOf(path, device, kernel),
  ]);
  return [...mounts, ...swaps, ...holders, ...loops];
}

/** Processes that have a device or a part of it open, and mounts that only they see. @throws as `claimsOf` */
export async function processesWith(path: string, kernel: Kernel = running): Promise<string[]> {
  const device = await orElse(realpath(path), undefined);
  if (device === undefined) return [];
  const pids = (await readdir(kernel.proc)).filter((name) => /^\d+$/.test(name));
  const seen = new Set(await Promise.all(['self', '1'].map((pid) => viewOf(pid, kernel))));
  const found: string[] = [];
  for (const pid of pids) {
    const name = (await readFile(join(kernel.proc, pid, 'comm'), 'utf8').catch(() => '')).trim();
    if (lookers.has(name)) continue;
    if (await hasOpen(pid, device, kernel)) found.push(`open in ${name || 'a process'} (${pid})`);
    const view = await viewOf(pid, kernel);
    if (view === '' || seen.has(view)) continue;
    seen.add(view);
    const mounts = await mountsOf(device, [pid], kernel);
    found.push(...mounts.map((words) => `${words} as ${name || 'a process'} (${pid}) sees it`));
  }
  return found;
}

/** The device itself, or a partition of it. */
function belongsTo(device: string, path: string): boolean {
  return path === device || (path.startsWith(`${device}p`) && /^\d+$/.test(path.slice(device.length + 1)));
}

/** Which mounts a process sees; the same word for those that see the same. */
function viewOf(pid: string, { proc }: Kernel): Promise<string> {
  return readlink(join(proc, pid, 'ns', 'mnt')).catch(() => '');
}

async function mountsOf(device: string, pids: readonly string[], { proc }: Kernel): Promise<string[]> {
  const texts = await Promise.all(
    pids.map((pid) => orElse(readFile(join(proc, pid, 'mountinfo'), 'utf8'), '')),
  );
  const found = new Set<string>();
  for (const line of texts.join('\n').split('\n')) {
    // The source stands behind a dash that ends the fields whose number varies.
    const [before = '', after = ''] = line.split(' - ');
    const source = unescaped(after.split(' ')[1] ?? '');
    if (!source.startsWith('/')) continue;
    const real = await realpath(source).catch(() => source);
    if (belongsTo(device, real)) found.add(`mounted at ${unescaped(before.split(' ')[4] ?? '')}`);
  }
  return [...found];
}

/** The kernel writes spaces and the like in octal. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

async function swapsOf(device: string, { proc }: Kernel): Promise<string[]> {
  const lines = (await orElse(readFile(join(proc, 'swaps'), 'utf8'), '')).split('\n').slice(1);
  const sources = lines.map((line) => unescaped(line.split(/\s+/)[0] ?? ''));
  return sources.some((source) => belongsTo(device, source)) ? ['used as swap'] : [];
}

/** What stands on a device or on its partitions, by its own name where it has one. */
async function holdersOf(device: string, { sys }: Kernel): Promise<string[]> {
  const name = basename(device);
  const folder = join(sys, 'block', name);
  const parts = (await orElse(readdir(folder), [])).filter((part) => belongsTo(name, part));
  const holders = await Promise.all(
    [folder, ...parts.map((part) => join(folder, part))].map((place) =>
      orElse(readdir(join(place, 'holders')), []),
    ),
  );
  return Promise.all(
    holders.flat().map(async (holder) => {
      const file = join(sys, 'block', holder, 'dm', 'name');
      const known = (await readFile(file, 'utf8').catch(() => '')).trim();
      return `used by ${known || holder}`;
    }),
  );
}

async function loopsOf(path: string, device: string, { sys }: Kernel): Promise<string[]> {
  const names = (await orElse(readdir(join(sys, 'block')), [])).filter((name) => /^loop\d+$/.test(name));
  const found = await Promise.all(
    names.map(async (name) => {
      const file = join(sys, 'block', name, 'loop', 'backing_file');
      const backing = (await orElse(readFile(file, 'utf8'), '')).trim();
      const isIt = backing === path || belongsTo(device, backing);
      return isIt ? `used by the loop device ${name}` : undefined;
    }),
  );
  return found.filter((words) => words !== undefined);
}

async function hasOpen(pid: string, device: string, { proc }: Kernel): Promise<boolean> {
  const folder = join(proc, pid, 'fd');
  const fds = await readdir(folder).catch(() => []);
  const targets = await Promise.all(fds.map((fd) => readlink(join(folder, fd)).catch(() => '')));
  return targets.some((target) => belongsTo(device, target));
}
