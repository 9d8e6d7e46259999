import type { Context } from '../host/context.ts';
import { inspect, instanceNames } from './store.ts';
import { listWarm } from './warm-store.ts';

/** Which instances and warm states stand on which image: digest to names. */
export async function imageUsers(ctx: Context): Promise<Map<string, string[]>> {
  const users = new Map<string, string[]>();
  for (const name of await instanceNames(ctx)) {
    const digest = (await inspect(ctx, name))?.instance?.state.imageDigest;
    if (digest) users.set(digest, [...(users.get(digest) ?? []), name]);
  }
  for (const warm of await listWarm(ctx)) {
    if (warm.state !== 'whole') continue;
    const { imageDigest } = warm.manifest;
    users.set(imageDigest, [...(users.get(imageDigest) ?? []), `the warm state ${warm.key.slice(0, 12)}`]);
  }
  return users;
}
