import { Failure } from '../core/errors.ts';
import type { Instance } from './instance.ts';

/** The failure of a provisioning script, told in its own words. */
export function provisioningFailed({ name }: Pick<Instance, 'name'>, words: string): Failure {
  return new Failure('guest', `the provisioning of "${name}" failed`, {
    detail: words,
    hint: 'mend the script, then run the same command again',
  });
}
