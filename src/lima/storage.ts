import { Failure } from '../core/errors.ts';
import type { Spec } from '../template/spec.ts';

/** @throws Failure `unsupported` for a spec with storage, which Lima's machines don't have */
export function refuseStorage({ storage }: Pick<Spec, 'storage'>): void {
  if (storage === undefined || storage.length === 0) return;
  throw new Failure(
    'unsupported',
    'machines of Lima have no storage besides their disk; those of the driver qemu do',
    {
      hint: 'zfsdev up --driver qemu, or leave storage out of the template',
      data: { storage: storage.map(({ name }) => name) },
    },
  );
}
