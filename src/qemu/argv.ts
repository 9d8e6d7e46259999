import { MiB } from '../core/bytes.ts';
import {
  agentGuestPort,
  diskPorts,
  serialPorts,
  type Accelerator,
  type Architecture,
  type Boot,
  type Flash,
  type Machine,
} from './machine.ts';
import { optionString } from './option-string.ts';
import { sharesMemory, storageArgv } from './storage-argv.ts';

/** Name of the disk's qcow2 node, for QMP (snapshots, block jobs). */
export const diskNode = 'disk0';

/**
 * All arguments of qemu-system for one machine, the program's own name left out. Pure: the same machine gives the same
 * arguments, which a memory snapshot needs to be restored into.
 *
 * What must hold where it runs: the folder of the sockets is the owner's alone (0700). QEMU makes its sockets under
 * the umask 027 that `-daemonize` sets, so nobody else could connect anyway, but the mode shows group bits.
 */
export function planArgv(machine: Machine, platform: NodeJS.Platform = process.platform): string[] {
  return [
    ...base(machine),
    ...board(machine.architecture, machine.accelerator),
    ...['-smp', `cpus=${machine.cpus}`],
    ...memory(machine),
    ...boot(machine),
    ...ports(),
    ...disk(machine),
    ...seed(machine),
    ...modules(machine),
    ...network(machine),
    ...entropy(),
    ...serial(machine),
    ...agent(machine),
    // After all else: whatever storage there is, the disk with the root file system is the first one that the guest finds, and
    // every other device stays where it was.
    ...storageArgv(machine.storage),
    ...monitor(machine),
    ...restore(machine),
    ...lifetime(machine, platform),
  ];
}

function base({ name }: Machine): string[] {
  return [
    '-nodefaults',
    '-no-user-config',
    ...['-display', 'none'],
    // `process=` makes it findable in ps and top; the guest's name alone does not show there.
    ...['-name', optionString(name, { process: `zfsdev-${name}` })],
  ];
}

/** Board, accelerator and CPU: what the probe guest tries as well. */
export function board(architecture: Architecture, accelerator: Accelerator): string[] {
  return [
    ...['-machine', boardOf(architecture, accelerator)],
    ...['-accel', accelerator === 'tcg' ? 'tcg,thread=multi' : accelerator],
    ...['-cpu', cpuOf(architecture, accelerator)],
  ];
}

/** Without the devices that no guest of ours uses: each of them costs the firmware and the kernel a look. */
function boardOf(architecture: Architecture, accelerator: Accelerator): string {
  if (architecture === 'x86_64') {
    return optionString('q35', {
      vmport: false,
      hpet: false,
      smm: false,
      graphics: false,
      sata: false,
      smbus: false,
      usb: false,
    });
  }
  // Under hvf the interrupt controller is emulated, and only as version 2.
  const gic = { kvm: 'host', hvf: 2, tcg: 3 }[accelerator];
  return optionString('virt', { 'gic-version': gic });
}

/**
 * The CPU of an x86 guest that is translated.
 *
 * Five levels of page tables make each page walk longer. Without cx16 the kernel takes other paths than cmpxchg16b, after
 * which QEMU 7.2 now and then leaves garbage in the flags: 4 boots of 10 ended in a double fault in kmalloc with it, and
 * none of 10 without. With erms and fsrm the kernel clears and copies memory by `rep stosb` and `rep movsb`, which are
 * translated into a loop over single bytes; without them it takes eight at a time.
 */
export const tcgCpu = optionString('max', { la57: false, cx16: false, erms: false, fsrm: false });

function cpuOf(architecture: Architecture, accelerator: Accelerator): string {
  if (accelerator !== 'tcg') return 'host';
  // Pointer authentication with QARMA is computed in software at each call and return.
  return architecture === 'x86_64' ? tcgCpu : 'max,pauth-impdef=on';
}

/** The block of memory has the same name wherever it lies: a saved state names it, and only fits a machine that has it. */
function memory({ memory: size, ram = { kind: 'own' }, storage }: Machine): string[] {
  const mebibytes = Math.floor(size / MiB);
  const common = { id: 'ram0', size: mebibytes * MiB };
  const own = sharesMemory(storage)
    ? { 'qom-type': 'memory-backend-memfd', ...common, share: true }
    : { 'qom-type': 'memory-backend-ram', ...common };
  const backend =
    ram.kind === 'own'
      ? own
      : { 'qom-type': 'memory-backend-file', ...common, 'mem-path': ram.path, share: ram.shared };
  return [
    ...['-m', `size=${mebibytes}M`],
    ...['-object', JSON.stringify(backend), '-machine', 'memory-backend=ram0'],
  ];
}

function boot({ boot: from }: Machine): string[] {
  const clock = ['-rtc', 'base=utc'];
  if (from.kind === 'firmware') return [...firmware(from), ...clock];
  const { kernel, initrd, commandLine } = from;
  return ['-kernel', kernel, '-initrd', initrd, '-append', commandLine, '-no-reboot', ...clock];
}

/**
 * `strict`: only what has a place in the order is tried, so that no firmware looks for a network to boot from. A guest that
 * restarts does so, as its own system may want to after an update.
 */
function firmware({ uefi }: Extract<Boot, { kind: 'firmware' }>): string[] {
  const flash = (name: string, { path: filename, format }: Flash, isReadOnly: boolean): string[] => [
    '-blockdev',
    JSON.stringify({
      driver: format,
      'node-name': name,
      'read-only': isReadOnly,
      file: { driver: 'file', filename, 'read-only': isReadOnly },
    }),
  ];
  const parts = uefi
    ? [
        ...flash('firmware', uefi.code, true),
        ...['-machine', 'pflash0=firmware'],
        ...(uefi.variables
          ? [...flash('variables', uefi.variables, false), '-machine', 'pflash1=variables']
          : []),
      ]
    : [];
  return [...parts, '-boot', 'strict=on'];
}

function ports(): string[] {
  return Array.from({ length: diskPorts }, (_, i) => i + 1).flatMap((slot) =>
    device({ driver: 'pcie-root-port', id: `port${slot}`, chassis: slot, slot }),
  );
}

/**
 * Discard on both nodes, or nothing that the guest frees ever leaves the host's file. `cache.direct` stays off, since
 * many guests share one image through the host's page cache; flushes are obeyed (`no-flush` off), so a power cut of
 * the host loses nothing that the guest was told is safe. Threads for I/O: io_uring and native AIO want O_DIRECT to
 * be asynchronous, or aren't there on every host.
 */
function disk({ disk: filename, boot: from }: Machine): string[] {
  const cache = { direct: false, 'no-flush': false };
  return [
    '-blockdev',
    JSON.stringify({
      driver: 'file',
      'node-name': `${diskNode}-file`,
      filename,
      aio: 'threads',
      cache,
      discard: 'unmap',
    }),
    '-blockdev',
    JSON.stringify({
      driver: 'qcow2',
      'node-name': diskNode,
      file: `${diskNode}-file`,
      cache,
      discard: 'unmap',
      'detect-zeroes': 'unmap',
    }),
    ...device({
      driver: 'virtio-blk-pci',
      id: 'blk0',
      drive: diskNode,
      serial: 'zfsdev-root',
      ...(from.kind === 'firmware' ? { bootindex: 0 } : {}),
    }),
  ];
}

/** After the disk, whose name in the guest it must not take. */
function seed({ boot: from }: Machine): string[] {
  if (from.kind !== 'firmware') return [];
  const node = {
    driver: 'raw',
    'node-name': 'seed',
    'read-only': true,
    file: { driver: 'file', filename: from.seed, 'read-only': true },
  };
  return [
    ...['-blockdev', JSON.stringify(node)],
    ...device({ driver: 'virtio-blk-pci', id: 'blk1', drive: 'seed', serial: 'zfsdev-seed' }),
  ];
}

/** Known to the guest's init by its serial number, so that the order of disks decides nothing. */
function modules({ modules: filename }: Machine): string[] {
  if (filename === undefined) return [];
  const node = { driver: 'file', 'node-name': 'modules0-file', filename, 'read-only': true };
  const raw = { driver: 'raw', 'node-name': 'modules0', file: 'modules0-file', 'read-only': true };
  return [
    ...['-blockdev', JSON.stringify(node), '-blockdev', JSON.stringify(raw)],
    ...device({ driver: 'virtio-blk-pci', id: 'blkmodules', drive: 'modules0', serial: 'zfsdev-modules' }),
  ];
}

function network({ mac, sshPort, commandPort }: Machine): string[] {
  const command = commandPort === undefined ? '' : `,hostfwd=tcp:127.0.0.1:${commandPort}-:${agentGuestPort}`;
  return [
    // An option string: JSON is taken by 7.2 and later only.
    ...[
      '-netdev',
      `${optionString('user', { id: 'net0', hostfwd: `tcp:127.0.0.1:${sshPort}-:22` })}${command}`,
    ],
    // Without an option ROM nothing offers to boot from the network.
    ...device({ driver: 'virtio-net-pci', id: 'nic0', netdev: 'net0', mac, romfile: '' }),
  ];
}

function entropy(): string[] {
  return device({ driver: 'virtio-rng-pci', id: 'entropy0' });
}

/** Appended to, so that the console of the boot before (a panic, say) can still be read after the next one. */
function serial({ architecture, consoleLog, eventLog }: Machine): string[] {
  const toFile = (id: string, path: string): string[] => [
    '-chardev',
    optionString('file', { id, path, append: true }),
  ];
  return [
    ...toFile('console', consoleLog),
    ...['-serial', 'chardev:console'],
    ...toFile('events', eventLog),
    ...(serialPorts(architecture).events === 'ttyS1'
      ? ['-serial', 'chardev:events']
      : device({ driver: 'pci-serial', id: 'serial1', chardev: 'events' })),
  ];
}

function agent({ agentSocket }: Machine): string[] {
  return [
    ...device({ driver: 'virtio-serial-pci', id: 'ports0' }),
    ...['-chardev', optionString('socket', { id: 'agent', path: agentSocket, server: true, wait: false })],
    ...device({
      driver: 'virtserialport',
      id: 'agent0',
      bus: 'ports0.0',
      chardev: 'agent',
      name: 'org.qemu.guest_agent.0',
    }),
  ];
}

function monitor({ qmpSocket }: Machine): string[] {
  return [
    ...['-chardev', optionString('socket', { id: 'qmp', path: qmpSocket, server: true, wait: false })],
    ...['-mon', 'chardev=qmp,mode=control'],
  ];
}

/** `-S`: whoever restores looks first whether what was read is whole, and then says `cont`. */
function restore({ restores, paused }: Machine): string[] {
  if (restores) return ['-incoming', 'defer', '-S'];
  return paused ? ['-S'] : [];
}

/**
 * `-daemonize` returns once all devices and sockets are there, and fails with QEMU's own words if one can't be.
 * The sandbox must let it fork: daemonizing does, and so does saving memory on versions before 9.0.
 */
function lifetime({ pidFile }: Machine, platform: NodeJS.Platform): string[] {
  return [
    ...(platform === 'linux' ? ['-sandbox', 'on,obsolete=deny,resourcecontrol=deny'] : []),
    ...['-msg', 'timestamp=on', '-pidfile', pidFile, '-daemonize'],
  ];
}

function device(properties: Readonly<Record<string, string | number | boolean>>): string[] {
  return ['-device', JSON.stringify(properties)];
}
