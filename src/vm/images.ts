import type { Context } from '../host/context.ts';
import { inspect, instanceNames } from './store.ts';

/** Which instances stand on which image: digest to names. */
export async function imageUsers(ctx: Context): Promise<Map<string, string[]>> {
  const users = new Map<string, string[]>();
  for (const name of await instanceNames(ctx)) {
    const digest = (await inspect(ctx, name))?.instance?.state.imageDigest;
    if (digest) users.set(digest, [...(users.get(digest) ?? []), name]);
  }
  return users;
}
