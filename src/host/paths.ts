import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';

/** Longest path of a Unix socket in bytes, the terminating zero left out. */
const socketPathLimit = process.platform === 'darwin' ? 103 : 107;

/** Every file name inside one instance's folder. */
export interface InstancePaths {
  readonly folder: string;
  readonly spec: string;
  readonly state: string;
  readonly disk: string;
  /** Further disks that zfsdev made, and a file there by its name: `NAME.qcow2`, `NAME.raw`. */
  readonly disks: string;
  /** The memory of a machine that is there to be saved. */
  readonly memory: string;
  readonly initrd: string;
  /** What cloud-init is told, for a machine of a cloud image; and the variables of its firmware. */
  readonly seed: string;
  readonly variables: string;
  /** What Lima was given, for a machine of its driver. */
  readonly lima: string;
  readonly console: string;
  /** The console of the start before. */
  readonly formerConsole: string;
  readonly events: string;
  readonly pid: string;
  readonly qmp: string;
  readonly agent: string;
  readonly knownHosts: string;
  readonly control: string;
  readonly protect: string;
  readonly agentKey: string;
  /** What is known of its snapshots beyond what its disks tell. */
  readonly snapshots: string;
  /** How far a snapshot that is being taken may let the disks grow; of whoever holds the instance's lock. */
  readonly snapshotClaim: string;
  /** Where a snapshot is served while its export is compared with it. */
  readonly nbd: string;
  /** Where a share of this name is served by virtiofs, and what its server says. */
  readonly share: (name: string) => { readonly socket: string; readonly log: string };
}

/** Every file name inside the folder of one warm state. */
export interface WarmPaths {
  readonly folder: string;
  readonly memory: string;
  /** The state of everything but memory and disk: processors, devices. */
  readonly devices: string;
  readonly disk: string;
  readonly manifest: string;
}

/** Every file name inside the folder of one kernel build. */
export interface BuildPaths {
  readonly folder: string;
  /** What is handed to the builder, and where the one in a root file system works. */
  readonly work: string;
  /** That root file system. */
  readonly root: string;
  /** What is built, and which phases are done. */
  readonly state: string;
  /** The most that it can take, and what it has. */
  readonly claim: string;
  readonly log: string;
  /** There once what a root file system's build has come to is on the host's disk. */
  readonly settled: string;
  /** There once the archive is packed: from then on it may lie where it is wanted. */
  readonly packed: string;
}

/** Every file name inside the folder of a kernel that was taken in. */
export interface KernelPaths {
  readonly folder: string;
  readonly image: string;
  readonly initrd: string;
  /** A file system with the modules, for a disk of their own. */
  readonly modules: string;
  readonly manifest: string;
}

/** The one place that knows a file name in the state home. */
export interface Paths {
  readonly home: string;
  readonly instances: string;
  readonly images: string;
  readonly locks: string;
  readonly keys: string;
  readonly privateKey: string;
  readonly accelerator: string;
  /** Versions of programs that were asked before. */
  readonly programs: string;
  /** What every look at the disks found, a line each. */
  readonly usageHistory: string;
  readonly warm: string;
  /** Lima's home for the machines that zfsdev makes with it. */
  readonly lima: string;
  readonly instance: (name: InstanceName) => InstancePaths;
  /** Sockets that lead to volume managers, as long as somebody asks them something. */
  readonly zvolSockets: string;
  readonly builds: string;
  readonly kernels: string;
  /** What compilers made before, for kernels that are built again. */
  readonly compilerCache: string;
  readonly warmState: (key: string) => WarmPaths;
  readonly build: (id: string) => BuildPaths;
  readonly kernel: (digest: string) => KernelPaths;
  readonly lock: (name: string) => string;
}

/** `$ZFSDEV_HOME`, else `~/.zfsdev`; made absolute. */
export function resolvePaths(env: Readonly<NodeJS.ProcessEnv>): Paths {
  const home = resolve(env['ZFSDEV_HOME'] ?? join(env['HOME'] ?? homedir(), '.zfsdev'));
  const instances = join(home, 'instances');
  const warm = join(home, 'warm');
  const keys = join(home, 'keys');
  const locks = join(home, 'locks');
  const builds = join(home, 'builds');
  const kernels = join(home, 'kernels');
  return {
    home,
    instances,
    images: join(home, 'images'),
    locks,
    keys,
    privateKey: join(keys, 'id_ed25519'),
    accelerator: join(home, 'accelerator.json'),
    programs: join(home, 'programs.json'),
    usageHistory: join(home, 'usage.jsonl'),
    warm,
    lima: join(home, 'lima'),
    instance: (name) => instancePaths(join(instances, name)),
    zvolSockets: join(home, 'zvol'),
    builds,
    kernels,
    compilerCache: join(builds, '.ccache'),
    warmState: (key) => warmPaths(join(warm, key)),
    build: (id) => buildPaths(join(builds, id)),
    kernel: (digest) => kernelPaths(join(kernels, digest)),
    lock: (name) => join(locks, `${name}.lock`),
  };
}

function instancePaths(folder: string): InstancePaths {
  return {
    folder,
    spec: join(folder, 'spec.json'),
    state: join(folder, 'state.json'),
    disk: join(folder, 'disk.qcow2'),
    disks: join(folder, 'disks'),
    memory: join(folder, 'memory'),
    initrd: join(folder, 'initrd'),
    seed: join(folder, 'seed.iso'),
    variables: join(folder, 'uefi-vars'),
    lima: join(folder, 'lima.yaml'),
    console: join(folder, 'console.log'),
    formerConsole: join(folder, 'console.log.1'),
    events: join(folder, 'events.log'),
    pid: join(folder, 'qemu.pid'),
    qmp: join(folder, 'qmp.sock'),
    agent: join(folder, 'agent.sock'),
    knownHosts: join(folder, 'known_hosts'),
    control: join(folder, 'ssh.sock'),
    protect: join(folder, 'protected'),
    agentKey: join(folder, 'agent.key'),
    snapshots: join(folder, 'snapshots.json'),
    snapshotClaim: join(folder, 'snapshot.claim'),
    nbd: join(folder, 'nbd.sock'),
    share: (name) => ({ socket: join(folder, `fs-${name}.sock`), log: join(folder, `fs-${name}.log`) }),
  };
}

function warmPaths(folder: string): WarmPaths {
  return {
    folder,
    memory: join(folder, 'memory'),
    devices: join(folder, 'devices'),
    disk: join(folder, 'disk.qcow2'),
    manifest: join(folder, 'manifest.json'),
  };
}

function buildPaths(folder: string): BuildPaths {
  return {
    folder,
    work: join(folder, 'work'),
    root: join(folder, 'root'),
    state: join(folder, 'state.json'),
    claim: join(folder, 'claim.json'),
    log: join(folder, 'build.log'),
    settled: join(folder, 'work', 'done', 'settled'),
    packed: join(folder, 'packed'),
  };
}

function kernelPaths(folder: string): KernelPaths {
  return {
    folder,
    image: join(folder, 'vmlinuz'),
    initrd: join(folder, 'initrd'),
    modules: join(folder, 'modules.ext4'),
    manifest: join(folder, 'manifest.json'),
  };
}

/** Where a disk is written anew, beside it; by its own path, not by that of a link to it. */
export function compactedFile(disk: string): string {
  return besideOf(disk, 'zfsdev-compact');
}

/** Where a file is made, beside its place, which it takes once it is whole. */
export function unfinishedFile(file: string): string {
  return besideOf(file, 'zfsdev-new');
}

/** Bytes that a name of a file may have. */
const longestName = 255;

/** A name that nobody else would give a file of theirs, as what is there is deleted. */
function besideOf(path: string, ending: string): string {
  const name = `.${basename(path)}.${ending}`;
  const short = createHash('sha256').update(basename(path)).digest('hex').slice(0, 24);
  return join(dirname(path), Buffer.byteLength(name) > longestName ? `.${short}.${ending}` : name);
}

/**
 * Checks that a Unix socket can have this path.
 * @throws Failure `usage` that names the limit and the way out.
 */
export function checkSocketPath(path: string): void {
  const length = Buffer.byteLength(path);
  if (length <= socketPathLimit) return;
  throw new Failure(
    'usage',
    `the path of a socket would have ${length} bytes, and the system allows ${socketPathLimit}: ${path}`,
    {
      hint: 'set ZFSDEV_HOME to a shorter path, for instance: export ZFSDEV_HOME=/var/tmp/zfsdev',
    },
  );
}
