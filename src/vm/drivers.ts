import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { isCloudImage, type DriverName, type Spec } from '../template/spec.ts';
import { cloudDriver } from './cloud-driver.ts';
import type { Driver } from './driver.ts';
import type { Instance } from './instance.ts';
import { limaDriver } from './lima-driver.ts';
import { qemuDriver } from './qemu-driver.ts';

/** The driver of a spec: the template's or the user's choice, `ZFSDEV_DRIVER`, else what the platform is best at. */
export function driverName(ctx: Context, spec: Pick<Spec, 'driver'>): DriverName {
  const chosen = spec.driver ?? ctx.env['ZFSDEV_DRIVER'];
  if (chosen === 'qemu' || chosen === 'lima') return chosen;
  if (chosen)
    throw new Failure('usage', `ZFSDEV_DRIVER is "${chosen}"`, { hint: 'drivers are qemu and lima' });
  return process.platform === 'darwin' ? 'lima' : 'qemu';
}

/** What makes a new machine of this spec. */
export function driverFor(ctx: Context, spec: Pick<Spec, 'driver'> & Partial<Pick<Spec, 'image'>>): Driver {
  return driverName(ctx, spec) === 'lima' ? limaDriver(ctx) : builtInDriver(ctx, spec);
}

/** What runs a machine that is there: the driver that made it, whatever is chosen now. */
export function driverOf(
  ctx: Context,
  instance: (Pick<Instance, 'state'> & Partial<Pick<Instance, 'spec'>>) | undefined,
): Driver {
  return instance?.state.driver === 'lima' ? limaDriver(ctx) : builtInDriver(ctx, instance?.spec);
}

function builtInDriver(ctx: Context, spec: Partial<Pick<Spec, 'image'>> | undefined): Driver {
  return spec?.image && isCloudImage(spec.image) ? cloudDriver(ctx) : qemuDriver(ctx);
}

/**
 * Whether a machine boots with zfsdev's own seed, which brings the programs that run in it, always those of this zfsdev. To any
 * other machine they have to be brought.
 */
export function isSeeded({ state, spec }: Pick<Instance, 'state' | 'spec'>): boolean {
  return state.driver !== 'lima' && !isCloudImage(spec.image);
}
