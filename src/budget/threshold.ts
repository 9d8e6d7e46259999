import { bytes, GiB, type Bytes } from '../core/bytes.ts';
import type { Spec } from '../template/spec.ts';

const GB = 10 ** 9;

/**
 * Free space that the host should have before a machine of this kind is made, in bytes, beside its own bound: 5 GB for
 * one that only tests ZFS, 10 GB for a small one that builds as well, 20 GB for a build machine of its own. The figures are
 * those of the project's sizing guide (docs/sizing.md).
 */
export function thresholdOf(spec: Pick<Spec, 'worstCase' | 'pool' | 'disk'>): Bytes {
  const builds = spec.worstCase.some(({ part }) => part === 'artifacts');
  if (!builds) return bytes(Math.min(5 * GB, spec.disk + GiB));
  return bytes(spec.pool ? 10 * GB : 20 * GB);
}
