import { parseName, type InstanceName } from '../core/names.ts';
import { requireInstance } from '../vm/store.ts';
import type { Session } from './session.ts';

/**
 * Does one thing to each instance in turn, all names checked before the first is touched. Gives what came of it, or
 * undefined under --dry-run, where it says what it would do.
 * @throws Failure `usage`, `not-found`; whatever `act` throws, the instances after that one untouched.
 */
export async function eachInstance<T>(
  { ctx }: Session,
  names: readonly string[],
  would: string,
  act: (name: InstanceName) => Promise<T>,
): Promise<T[] | undefined> {
  const checked = [...new Set(names)].map(parseName);
  for (const name of checked) await requireInstance(ctx, name);
  if (ctx.dryRun) {
    for (const name of checked) ctx.emit({ type: 'would', text: `${would} ${name}` });
    return undefined;
  }
  const results: T[] = [];
  for (const name of checked) results.push(await act(name));
  return results;
}
