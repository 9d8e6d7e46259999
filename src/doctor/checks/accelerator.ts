import { constants } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../core/errors.ts';
import { chooseAccelerator, type AcceleratorAnswer } from '../../qemu/accelerator.ts';
import { hostArchitecture } from '../../qemu/binary.ts';
import type { Check } from '../check.ts';
import { isAllowed, type Host } from '../host.ts';
import { typedAsRoot } from '../packages.ts';

export const acceleratorCheck: Check = {
  id: 'accelerator',
  title: 'accelerator',
  neededFor: 'speed of machines',
  optional: ({ platform }) => platform !== 'linux',
  look: async (host) => {
    let answer: AcceleratorAnswer;
    try {
      answer = await askAfresh(host);
    } catch (error) {
      if (!(error instanceof Failure) || error.reason !== 'dependency') throw error;
      return { status: 'weak', found: 'not tried, since QEMU is missing' };
    }
    const { accelerator, reason, hint } = answer;
    if (accelerator !== 'tcg') return { status: 'ok', found: `${accelerator}, tried with a guest` };
    if (!(await isKvmRefused(host))) {
      return { status: 'weak', found: 'tcg (emulation, slower)', note: hint ? `${reason}; ${hint}` : reason };
    }
    return {
      status: 'weak',
      found: 'tcg (emulation, slower)',
      note: `/dev/kvm is there, but ${host.user.name} may not open it; after this command, log in again`,
      byHand: [typedAsRoot(['usermod', '-aG', 'kvm', host.user.name], host.user)],
    };
  },
};

/** What was found before doesn't count here: who calls the doctor wants to know what is so now. */
async function askAfresh({ ctx, platform, root }: Host): Promise<AcceleratorAnswer> {
  // The answer is kept for `up` only where a state home can take it: a look at the host makes no folder.
  const keeps = await isAllowed(ctx.paths.home, constants.W_OK | constants.X_OK);
  return chooseAccelerator(keeps ? ctx : { ...ctx, dryRun: true }, {
    architecture: hostArchitecture(),
    choice: 'auto',
    refresh: true,
    platform,
    kvmDevice: join(root, 'dev/kvm'),
  });
}

async function isKvmRefused({ platform, root }: Host): Promise<boolean> {
  const device = join(root, 'dev/kvm');
  return (
    platform === 'linux' &&
    (await isAllowed(device, constants.F_OK)) &&
    !(await isAllowed(device, constants.R_OK | constants.W_OK))
  );
}
