import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { DriverName, Spec } from '../template/spec.ts';
import type { Driver } from './driver.ts';
import { qemuDriver } from './qemu-driver.ts';

/** The driver of a spec: the template's or the user's choice, `ZFSDEV_DRIVER`, else what the platform is best at. */
export function driverName(ctx: Context, spec: Pick<Spec, 'driver'> | undefined): DriverName {
  const chosen = spec?.driver ?? ctx.env['ZFSDEV_DRIVER'];
  if (chosen === 'qemu' || chosen === 'lima') return chosen;
  if (chosen)
    throw new Failure('usage', `ZFSDEV_DRIVER is "${chosen}"`, { hint: 'drivers are qemu and lima' });
  return process.platform === 'darwin' ? 'lima' : 'qemu';
}

export function driverFor(ctx: Context, spec: Pick<Spec, 'driver'> | undefined): Driver {
  if (driverName(ctx, spec) === 'qemu') return qemuDriver(ctx);
  throw new Failure('unsupported', 'this version runs machines with the qemu driver only', {
    hint: 'zfsdev render zfs-test > zfs-test.yaml && limactl create --name=zfs-test zfs-test.yaml\nruns the same machine under Lima; --driver qemu runs it here',
  });
}
