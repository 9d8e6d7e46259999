import { Failure } from '../../core/errors.ts';
import { findQemu, findQemuImg, hostArchitecture, type QemuBinary } from '../../qemu/binary.ts';
import { findUefi, uefiThing } from '../../qemu/firmware.ts';
import type { Check, Finding } from '../check.ts';
import { findProgram, type Host } from '../host.ts';
import { notInstalled } from './programs.ts';

const onLinux = ({ platform }: Host): boolean => platform === 'linux';

export const qemuCheck: Check = {
  id: 'qemu',
  title: 'QEMU',
  neededFor: 'running machines',
  mendable: true,
  // On macOS machines run under Lima.
  optional: (host) => !onLinux(host),
  look: (host) => {
    const architecture = hostArchitecture();
    return lookFor(host, `qemu-system-${architecture}`, () => findQemu(host.ctx, architecture));
  },
};

export const qemuImgCheck: Check = {
  id: 'qemu-img',
  title: 'qemu-img',
  neededFor: 'disks of machines',
  mendable: true,
  optional: (host) => !onLinux(host),
  look: (host) => lookFor(host, 'qemu-img', () => findQemuImg(host.ctx)),
};

export const uefiCheck: Check = {
  id: 'uefi',
  title: 'UEFI firmware',
  neededFor: 'machines of cloud images',
  mendable: true,
  // Images that zfsdev builds boot without, and a template may name the BIOS.
  optional: () => true,
  look: async ({ ctx, root }) => {
    const architecture = hostArchitecture();
    try {
      return { status: 'ok', found: (await findUefi(ctx, architecture, root)).code.path };
    } catch (error) {
      if (!(error instanceof Failure) || error.reason !== 'dependency') throw error;
      return notInstalled([uefiThing(architecture)], 'not installed');
    }
  },
};

async function lookFor(host: Host, program: string, find: () => Promise<QemuBinary>): Promise<Finding> {
  if ((await findProgram(host.ctx.env, program)) === undefined) return notInstalled([program]);
  try {
    return { status: 'ok', found: (await find()).version.text };
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== 'dependency') throw error;
    // Too old: the package is there already, so installing it again would mend nothing.
    return {
      status: 'missing',
      found: error.message,
      ...(host.manager === 'apt'
        ? { note: 'backports, or a newer release of the system, have newer ones' }
        : {}),
    };
  }
}
