import { lstatSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { filesQemuWrites } from '../host/file-locks.ts';
import { exists } from '../host/files.ts';
import { filesystemOf, type HostFilesystem } from '../host/free-space.ts';
import { limaHome, limaInstances, type LimaInstance } from '../lima/folder.ts';
import { storedData } from '../qemu/img.ts';
import type { PoolSpec } from '../template/spec.ts';
import { pauseOf, pauseWords } from '../vm/pause.ts';
import type { Inspection, Instance, Status } from '../vm/instance.ts';
import { machineFiles } from '../vm/machine-files.ts';
import { inspect, instanceNames } from '../vm/store.ts';
import { lookAtDisk, type DiskUsage } from './disk.ts';
import { askGuestUsage, type GuestUsage } from './guest-usage.ts';
import { sharedUsage, type SharedUsage } from './shared-usage.ts';

/** What one machine takes on the host. All sizes in bytes. */
export interface MachineUsage {
  readonly name: string;
  readonly driver: 'qemu' | 'lima';
  /** One of Lima's that zfsdev neither made nor adopted. */
  readonly foreign?: true;
  readonly status: Status;
  readonly disks: readonly DiskUsage[];
  /** Everything else in its folder: initrd, logs. */
  readonly other: number;
  readonly guest?: GuestUsage;
  /** What can be had back, as far as it can be told without doing it: `trim` is an upper bound, `compact` an estimate. */
  readonly reclaim: { readonly trim?: number; readonly clean?: number; readonly compact?: number };
  readonly problem?: string;
}

export interface Usage {
  readonly machines: readonly MachineUsage[];
  /** What machines stand on; empty where only some machines were asked for. */
  readonly shared: readonly SharedUsage[];
  /** The host's filesystems that any of it lies on. */
  readonly filesystems: readonly HostFilesystem[];
}

export interface UsageQuestion {
  /** All that there are if empty. */
  readonly names: readonly string[];
  /** Lima instances that zfsdev did not make as well. */
  readonly all: boolean;
  /** Only what the host has: no guest is asked, which would write to its disk, and nothing is estimated. */
  readonly filesOnly?: boolean;
}

/** Looks at every machine once. @throws Failure `not-found` for a name that nothing has. */
export async function surveyUsage(ctx: Context, question: UsageQuestion): Promise<Usage> {
  const { names, all, filesOnly = false } = question;
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
  const written = filesQemuWrites();
  const inspections = (await Promise.all(own.map((name) => inspect(ctx, name)))).filter(
    (inspection) => inspection !== undefined,
  );
  const found = await Promise.all([
    ...inspections.map((inspection) => ownMachine(ctx, inspection, { filesOnly, written })),
    ...foreign.map((instance) => limaMachine(instance, written)),
  ]);
  // One that was deleted while we looked is no longer there.
  const present = withoutTwins(found.filter((machine) => machine !== undefined));
  const machines = filesOnly ? present : await withEstimates(present);
  return {
    machines,
    shared: names.length === 0 ? await sharedUsage(ctx, machines, instancesOf(inspections)) : [],
    filesystems: await filesystems(ctx, machines),
  };
}

/** An adopted machine is one of zfsdev's and one of Lima's, and the first of them is shown. */
function withoutTwins(machines: readonly MachineUsage[]): MachineUsage[] {
  const owners = new Map<string, MachineUsage>();
  for (const machine of machines) {
    for (const { file } of machine.disks)
      if (file !== undefined && !owners.has(file)) owners.set(file, machine);
  }
  return machines.filter(({ name, disks }) => {
    const twin = owners.get(disks[0]?.file ?? '');
    return twin === undefined || twin.disks[0] === disks[0] || twin.name !== name;
  });
}

/** How many bytes all of it takes on the host, a file that several names lead to counted once. */
export function totalOf({ machines, shared }: Pick<Usage, 'machines' | 'shared'>): number {
  const counted = new Set<string>();
  let total = shared.reduce((sum, { actual }) => sum + actual, 0);
  for (const { disks, other } of machines) {
    total += other;
    for (const { file, actual } of disks) {
      if (file === undefined || !counted.has(file)) total += actual;
      if (file !== undefined) counted.add(file);
    }
  }
  return total;
}

function instancesOf(inspections: readonly Inspection[]): Instance[] {
  return inspections.map(({ instance }) => instance).filter((instance) => instance !== undefined);
}

async function limaMachine(
  { name, folder, running, disks, problem }: LimaInstance,
  written: Promise<ReadonlySet<string>>,
): Promise<MachineUsage> {
  const files = await filesOf(folder, disks);
  const words = problem ?? (running ? undefined : inUse(files.disks, await written));
  return {
    name,
    driver: 'lima',
    foreign: true,
    status: problem !== undefined ? 'broken' : running ? 'running' : 'stopped',
    ...files,
    reclaim: {},
    ...(words === undefined ? {} : { problem: words }),
  };
}

/** A machine that should not run, whose disk somebody writes to nevertheless. */
function inUse(disks: readonly DiskUsage[], written: ReadonlySet<string>): string | undefined {
  const busy = disks.find(({ file }) => file !== undefined && written.has(file));
  return busy && `${busy.path} is in use by a QEMU that was not started here: its size may be a moment old`;
}

/** Where it's worth a look: reading the tables and compressing samples takes some milliseconds a disk. */
const leastToEstimate = 16 * 2 ** 20;

/** Adds what compact would give back. Loaded only where there is a disk for it. */
async function withEstimates(machines: readonly MachineUsage[]): Promise<MachineUsage[]> {
  const worth = ({ kind, actual, snapshots, encrypted, problem }: DiskUsage): boolean =>
    kind === 'qcow2' && !encrypted && actual >= leastToEstimate && snapshots === 0 && problem === undefined;
  const candidates = machines.flatMap(({ status, problem, disks }) =>
    status === 'stopped' && problem === undefined ? disks.filter(worth) : [],
  );
  if (candidates.length === 0) return [...machines];
  const { estimateCompact } = await import('./compact-estimate.ts');
  const estimates = await estimateCompact(candidates);
  return machines.map((machine) => {
    const known = machine.disks.map(({ path }) => estimates.get(path)).filter((each) => each !== undefined);
    if (known.length === 0) return machine;
    const compact = known.reduce((sum, each) => sum + each, 0);
    return { ...machine, reclaim: { ...machine.reclaim, compact } };
  });
}

async function ownMachine(
  ctx: Context,
  found: Inspection,
  look: { readonly filesOnly: boolean; readonly written: Promise<ReadonlySet<string>> },
): Promise<MachineUsage | undefined> {
  const { name } = found;
  const place = await machineFiles(ctx, name, found.instance);
  const raw = place.storage.filter(({ disk }) => disk.type === 'raw').map(({ path }) => path);
  const files = await filesOf(place.folder, place.disks, raw);
  if (files.disks[0]?.file === undefined && !exists(ctx.paths.instance(name).folder)) return undefined;
  const driver = found.instance?.state.driver ?? 'qemu';
  const disks =
    driver === 'qemu'
      ? files.disks.map((disk) => (raw.includes(disk.path) ? disk : onlyQcow2(disk)))
      : files.disks;
  const common: MachineUsage = { name, driver, status: found.status, ...files, disks, reclaim: {} };
  const busy =
    found.status === 'stopped' || found.status === 'broken' ? inUse(disks, await look.written) : undefined;
  if (found.status === 'broken')
    return { ...common, problem: [found.reason, busy].filter(Boolean).join('; ') };
  if (found.status !== 'running') return { ...common, ...(busy === undefined ? {} : { problem: busy }) };
  const pause = await pauseOf(ctx, found);
  if (pause) return { ...common, problem: `stands still: ${pauseWords[pause]}; zfsdev resume ${name}` };
  if (look.filesOnly) return common;
  try {
    const [guest, stored] = await Promise.all([
      askGuestUsage(ctx, found.instance),
      storedData(ctx, place.disks[0] ?? ''),
    ]);
    const clean = Object.values(guest.cleanable).reduce((sum, size) => sum + size, 0);
    return { ...common, guest, reclaim: { clean, trim: trimmable(guest, stored, found.instance.spec.pool) } };
  } catch (error) {
    return { ...common, problem: `the guest can't be asked: ${messageOf(error)}` };
  }
}

function onlyQcow2(disk: DiskUsage): DiskUsage {
  if (disk.problem !== undefined || disk.kind === 'qcow2') return disk;
  return { ...disk, virtual: 0, problem: `${disk.path} is not a qcow2, as zfsdev makes them` };
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
  raw: readonly string[] = [],
): Promise<{ disks: DiskUsage[]; other: number }> {
  const disks = await Promise.all(paths.map((path) => lookAtDisk(path, raw.includes(path))));
  const names = await readdir(folder).catch(() => []);
  const others = names.map((name) => join(folder, name)).filter((path) => !paths.includes(path));
  return { disks, other: others.reduce((sum, path) => sum + ownBlocks(path), 0) };
}

/** What a name takes itself: a link is not what it leads to, and one that is gone takes nothing. */
function ownBlocks(path: string): number {
  try {
    return lstatSync(path).blocks * 512;
  } catch {
    return 0;
  }
}

async function filesystems(ctx: Context, machines: readonly MachineUsage[]): Promise<HostFilesystem[]> {
  const folders = new Set([ctx.paths.home]);
  for (const machine of machines) for (const { path } of machine.disks) folders.add(join(path, '..', '..'));
  const found = await Promise.all([...folders].map(filesystemOf));
  // Of several folders on one, the first names it: the state home.
  return found.filter(({ device }, i) => found.findIndex((each) => each.device === device) === i);
}
