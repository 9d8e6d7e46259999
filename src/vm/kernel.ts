import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { takeInKernel } from '../image/kernel-archive.ts';
import type { Kernel } from '../image/kernel-store.ts';
import { hostArchitecture } from '../qemu/binary.ts';
import { isCloudImage, type Spec } from '../template/spec.ts';
import { checkClaims } from './admission.ts';
import { driverName } from './drivers.ts';
import type { Instance } from './instance.ts';
import { wholeInstances } from './store.ts';

/** How much larger an archive is when it is unpacked, with its modules twice for a moment: measured 7. */
const unpackedFactor = 10;

/**
 * Takes an archive in, once there is room for it.
 * @throws Failure `not-found`, `files`, `no-space`
 */
export async function addKernel(ctx: Context, file: string, overcommit: boolean): Promise<Kernel> {
  const path = resolve(file);
  let size: number;
  try {
    size = (await stat(path)).size;
  } catch (error) {
    throw new Failure('not-found', `the kernel ${path} can't be looked at: ${messageOf(error)}`, {
      hint: 'zfsdev build-kernel makes one',
    });
  }
  const what = 'the unpacked kernel';
  const claim = { what, path: ctx.paths.kernels, bound: size * unpackedFactor, allocated: 0 };
  await checkClaims(ctx, [claim], { what, path: ctx.paths.kernels, free: 0 }, overcommit);
  return step(
    ctx.emit,
    'kernel',
    'Taking the kernel in',
    () => takeInKernel(ctx, path),
    ({ manifest }) => manifest.release,
  );
}

/**
 * A spec with a kernel instead of the image's.
 * @throws Failure `unsupported` for a driver that has its own, or a kernel for other processors; `usage` for a pool without
 *   OpenZFS.
 */
export function withKernel(ctx: Context, spec: Spec, { digest, manifest }: Kernel): Spec {
  const { release, architecture, zfs } = manifest;
  if (driverName(ctx, spec) !== 'qemu') {
    throw new Failure('unsupported', 'the driver lima boots the kernel of its image', {
      hint: 'add --driver qemu',
    });
  }
  if (isCloudImage(spec.image)) {
    throw new Failure('unsupported', `a cloud image boots its own kernel, and ${spec.template} has one`, {
      hint: 'take a template without image.location, like zfs-test',
    });
  }
  const here = { x86_64: 'x86_64', aarch64: 'arm64' }[hostArchitecture()];
  if (architecture !== here)
    throw new Failure(
      'unsupported',
      `the kernel ${release} is for ${architecture}, and this host is ${here}`,
    );
  if (spec.pool && zfs === '') {
    throw new Failure(
      'usage',
      `the kernel ${release} was built without OpenZFS, and ${spec.template} has a pool`,
      {
        hint: 'build it with --zfs debian, or take a template without a pool',
      },
    );
  }
  return { ...spec, kernel: { digest, release } };
}

/** Which instances boot which kernel: digest to names. */
export async function kernelUsers(ctx: Context): Promise<Map<string, string[]>> {
  return groupKernelUsers(await wholeInstances(ctx));
}

/** As `kernelUsers`, of what is known already. */
export function groupKernelUsers(instances: readonly Instance[]): Map<string, string[]> {
  const users = new Map<string, string[]>();
  for (const { name, spec } of instances)
    if (spec.kernel) users.set(spec.kernel.digest, [...(users.get(spec.kernel.digest) ?? []), name]);
  return users;
}
