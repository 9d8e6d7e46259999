import { expect, test } from 'vitest';
import { bytes, GiB } from '../../../src/core/bytes.ts';
import { planArgv } from '../../../src/qemu/argv.ts';
import { kernelCommandLine, type Machine } from '../../../src/qemu/machine.ts';
import { optionString, optionValue } from '../../../src/qemu/option-string.ts';

const machine: Machine = {
  name: 'zfs-test',
  architecture: 'x86_64',
  accelerator: 'tcg',
  cpus: 2,
  memory: bytes(2 * GiB),
  boot: {
    kind: 'kernel',
    kernel: '/h/images/d/vmlinuz',
    initrd: '/h/instances/zfs-test/initrd',
    commandLine: 'console=ttyS0 root=/dev/vda',
  },
  disk: '/h/instances/zfs-test/disk.qcow2',
  mac: '52:54:00:01:02:03',
  sshPort: 40022,
  commandPort: 41023,
  qmpSocket: '/h/instances/zfs-test/qmp.sock',
  agentSocket: '/h/instances/zfs-test/agent.sock',
  consoleLog: '/h/instances/zfs-test/console.log',
  eventLog: '/h/instances/zfs-test/events.log',
  pidFile: '/h/instances/zfs-test/qemu.pid',
};

/** One line an option, as a person reads it. */
function lines(argv: readonly string[]): string[] {
  return argv.reduce<string[]>((all, word) => {
    if (word.startsWith('-')) all.push(word);
    else all.push(`${all.pop() ?? ''} ${word}`);
    return all;
  }, []);
}

test('a machine under TCG', () => {
  expect(lines(planArgv(machine, 'linux'))).toMatchInlineSnapshot(`
    [
      "-nodefaults",
      "-no-user-config",
      "-display none",
      "-name zfs-test,process=zfsdev-zfs-test",
      "-machine q35,vmport=off,hpet=off,smm=off,graphics=off,sata=off,smbus=off,usb=off",
      "-accel tcg,thread=multi",
      "-cpu max,la57=off,cx16=off,erms=off,fsrm=off",
      "-smp cpus=2",
      "-m size=2048M",
      "-object {"qom-type":"memory-backend-ram","id":"ram0","size":2147483648}",
      "-machine memory-backend=ram0",
      "-kernel /h/images/d/vmlinuz",
      "-initrd /h/instances/zfs-test/initrd",
      "-append console=ttyS0 root=/dev/vda",
      "-no-reboot",
      "-rtc base=utc",
      "-device {"driver":"pcie-root-port","id":"port1","chassis":1,"slot":1}",
      "-device {"driver":"pcie-root-port","id":"port2","chassis":2,"slot":2}",
      "-device {"driver":"pcie-root-port","id":"port3","chassis":3,"slot":3}",
      "-device {"driver":"pcie-root-port","id":"port4","chassis":4,"slot":4}",
      "-blockdev {"driver":"file","node-name":"disk0-file","filename":"/h/instances/zfs-test/disk.qcow2","aio":"threads","cache":{"direct":false,"no-flush":false},"discard":"unmap"}",
      "-blockdev {"driver":"qcow2","node-name":"disk0","file":"disk0-file","cache":{"direct":false,"no-flush":false},"discard":"unmap","detect-zeroes":"unmap"}",
      "-device {"driver":"virtio-blk-pci","id":"blk0","drive":"disk0","serial":"zfsdev-root"}",
      "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:40022-:22,hostfwd=tcp:127.0.0.1:41023-:1023",
      "-device {"driver":"virtio-net-pci","id":"nic0","netdev":"net0","mac":"52:54:00:01:02:03","romfile":""}",
      "-device {"driver":"virtio-rng-pci","id":"entropy0"}",
      "-chardev file,id=console,path=/h/instances/zfs-test/console.log,append=on",
      "-serial chardev:console",
      "-chardev file,id=events,path=/h/instances/zfs-test/events.log,append=on",
      "-serial chardev:events",
      "-device {"driver":"virtio-serial-pci","id":"ports0"}",
      "-chardev socket,id=agent,path=/h/instances/zfs-test/agent.sock,server=on,wait=off",
      "-device {"driver":"virtserialport","id":"agent0","bus":"ports0.0","chardev":"agent","name":"org.qemu.guest_agent.0"}",
      "-chardev socket,id=qmp,path=/h/instances/zfs-test/qmp.sock,server=on,wait=off",
      "-mon chardev=qmp,mode=control",
      "-sandbox on,obsolete=deny,resourcecontrol=deny",
      "-msg timestamp=on",
      "-pidfile /h/instances/zfs-test/qemu.pid",
      "-daemonize",
    ]
  `);
});

test('KVM and hvf take the host CPU, and nothing else changes', () => {
  const tcg = lines(planArgv(machine, 'linux'));
  const kvm = lines(planArgv({ ...machine, accelerator: 'kvm' }, 'linux'));
  expect(kvm.filter((line) => !tcg.includes(line))).toEqual(['-accel kvm', '-cpu host']);
  const hvf = lines(planArgv({ ...machine, accelerator: 'hvf' }, 'darwin'));
  expect(hvf.filter((line) => !tcg.includes(line))).toEqual(['-accel hvf', '-cpu host']);
  expect(tcg.filter((line) => !hvf.includes(line) && line.startsWith('-sandbox'))).toHaveLength(1);
});

test('arm64 has its own board and its second port on PCI', () => {
  const x86 = lines(planArgv(machine, 'linux'));
  const arm = lines(planArgv({ ...machine, architecture: 'aarch64' }, 'linux'));
  expect(arm.filter((line) => !x86.includes(line))).toMatchInlineSnapshot(`
    [
      "-machine virt,gic-version=3",
      "-cpu max,pauth-impdef=on",
      "-device {"driver":"pci-serial","id":"serial1","chardev":"events"}",
    ]
  `);
});

test('a machine to be saved writes its memory through to a file, and its forks only read it', () => {
  const own = lines(planArgv(machine, 'linux'));
  const differing = (other: Partial<Machine>): string[] =>
    lines(planArgv({ ...machine, ...other }, 'linux')).filter((line) => !own.includes(line));
  const seed = differing({ ram: { kind: 'file', path: '/h/a,"b"/memory', shared: true } });
  expect(seed).toEqual([
    '-object {"qom-type":"memory-backend-file","id":"ram0","size":2147483648,"mem-path":"/h/a,\\"b\\"/memory","share":true}',
  ]);
  const fork = differing({ ram: { kind: 'file', path: '/h/memory', shared: false }, restores: true });
  expect(fork).toEqual([
    '-object {"qom-type":"memory-backend-file","id":"ram0","size":2147483648,"mem-path":"/h/memory","share":false}',
    '-incoming defer',
    '-S',
  ]);
});

test('a machine boots from its disk by firmware, with a seed behind it and no way to an agent', () => {
  const kernel = lines(planArgv(machine, 'linux'));
  const entries = Object.entries(machine).filter(([key]) => key !== 'commandPort');
  const rest = Object.fromEntries(entries) as unknown as Machine;
  const uefi = {
    code: { path: '/f/CODE.fd', format: 'raw' },
    variables: { path: '/h/vars', format: 'qcow2' },
  } as const;
  const seed = '/h/seed.iso';
  const byUefi = lines(planArgv({ ...rest, boot: { kind: 'firmware', uefi, seed } }, 'linux'));
  expect(byUefi.filter((line) => !kernel.includes(line))).toMatchInlineSnapshot(`
    [
      "-blockdev {"driver":"raw","node-name":"firmware","read-only":true,"file":{"driver":"file","filename":"/f/CODE.fd","read-only":true}}",
      "-machine pflash0=firmware",
      "-blockdev {"driver":"qcow2","node-name":"variables","read-only":false,"file":{"driver":"file","filename":"/h/vars","read-only":false}}",
      "-machine pflash1=variables",
      "-boot strict=on",
      "-device {"driver":"virtio-blk-pci","id":"blk0","drive":"disk0","serial":"zfsdev-root","bootindex":0}",
      "-blockdev {"driver":"raw","node-name":"seed","read-only":true,"file":{"driver":"file","filename":"/h/seed.iso","read-only":true}}",
      "-device {"driver":"virtio-blk-pci","id":"blk1","drive":"seed","serial":"zfsdev-seed"}",
      "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:40022-:22",
    ]
  `);
  expect(kernel.filter((line) => !byUefi.includes(line)).map((line) => line.split(' ')[0])).toEqual([
    '-kernel',
    '-initrd',
    '-append',
    '-no-reboot',
    '-device',
    '-netdev',
  ]);
  const byBios = lines(planArgv({ ...rest, boot: { kind: 'firmware', seed } }, 'linux'));
  expect(byUefi.filter((line) => !byBios.includes(line)).join()).toMatch(
    /^(-blockdev .*(CODE|vars).*|-machine pflash.)+$/,
  );
});

test('paths with commas, spaces and quotes reach QEMU whole', () => {
  const folder = '/home/a, "b"\\c';
  const argv = planArgv({
    ...machine,
    disk: `${folder}/d`,
    consoleLog: `${folder}/c`,
    qmpSocket: `${folder}/q`,
  });
  const json = argv.filter((word) => word.startsWith('{')).map((word) => JSON.parse(word) as object);
  expect(json).toContainEqual(expect.objectContaining({ driver: 'file', filename: '/home/a, "b"\\c/d' }));
  expect(argv).toContain('file,id=console,path=/home/a,, "b"\\c/c,append=on');
  expect(argv).toContain('socket,id=qmp,path=/home/a,, "b"\\c/q,server=on,wait=off');
});

test('only commas are special in an option string', () => {
  expect(optionValue('a,b=c d')).toBe('a,,b=c d');
  expect(optionString('file', { path: ',', append: true, size: 3 })).toBe('file,path=,,,append=on,size=3');
});

test('the kernel speaks where the planner listens', () => {
  expect(kernelCommandLine('x86_64', 'kvm')).toContain('console=ttyS0 ');
  expect(kernelCommandLine('aarch64', 'kvm')).toContain('console=ttyAMA0 ');
});

test('only what is translated has its programs at the same addresses each time', () => {
  expect(kernelCommandLine('x86_64', 'tcg').split(' ')).toContain('norandmaps');
  expect(kernelCommandLine('x86_64', 'kvm')).not.toContain('norandmaps');
});

test("a kernel's modules are a disk that is only read, known by its serial number", () => {
  const own = lines(planArgv({ ...machine, modules: '/h/kernels/d/modules.ext4' }, 'linux'));
  const without = lines(planArgv(machine, 'linux'));
  expect(own.filter((line) => !without.includes(line))).toEqual([
    '-blockdev {"driver":"file","node-name":"modules0-file","filename":"/h/kernels/d/modules.ext4","read-only":true}',
    '-blockdev {"driver":"raw","node-name":"modules0","file":"modules0-file","read-only":true}',
    '-device {"driver":"virtio-blk-pci","id":"blkmodules","drive":"modules0","serial":"zfsdev-modules"}',
  ]);
});
