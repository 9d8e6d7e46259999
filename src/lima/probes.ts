import type { Spec } from '../template/spec.ts';

/** An entry of Lima's `probes`: run as the guest's user until it succeeds or Lima gives up. */
export interface LimaProbe {
  readonly description: string;
  readonly mode: 'readiness';
  readonly script: string;
  readonly hint: string;
}

/**
 * What must be true before Lima calls the machine ready. Lima starts a machine happily although a provisioning script
 * has failed, so that there is a probe for what each of them leaves behind.
 */
export function probesOf(spec: Pick<Spec, 'image' | 'pool' | 'buildTools'>): LimaProbe[] {
  const probes: LimaProbe[] = [];
  if (spec.pool) {
    const { name } = spec.pool;
    probes.push(
      probe(
        `the pool ${name} is ONLINE`,
        `test "$(sudo zpool list -H -o health ${name})" = ONLINE`,
        `The pool ${name} did not come up.`,
      ),
    );
  } else if (spec.image.flavour === 'zfs') {
    probes.push(probe('ZFS is there', 'sudo zfs version', 'ZFS did not come up.'));
  }
  if (spec.buildTools) {
    probes.push(
      probe(
        'the tools of a kernel build are there',
        'for tool in bc bison flex gcc git make pahole; do command -v "$tool"; done',
        'The build tools were not installed.',
      ),
    );
  }
  return probes;
}

function probe(description: string, check: string, failed: string): LimaProbe {
  return {
    description,
    mode: 'readiness',
    script: `#!/bin/sh\nset -eu\n${check}\n`,
    hint: `${failed} In the guest, sudo cat /var/log/cloud-init-output.log tells why.\n`,
  };
}
