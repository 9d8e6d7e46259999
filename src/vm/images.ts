import type { Context } from '../host/context.ts';
import type { Instance } from './instance.ts';
import { machinesOn, withUsers } from './storage-users.ts';
import { wholeInstances } from './store.ts';
import { listWarm, type WarmState } from './warm-store.ts';

/** Which instances and warm states stand on which image: digest to names. Damaged instances count, by their disks. */
export async function imageUsers(ctx: Context): Promise<Map<string, string[]>> {
  const users = groupImageUsers(await wholeInstances(ctx), await listWarm(ctx));
  return withUsers(users, await machinesOn(ctx, ctx.paths.images));
}

/** Who stands on an image, by the files themselves: not who is only about to. */
export async function standingOn(ctx: Context, digest: string): Promise<string[]> {
  const machines = (await machinesOn(ctx, ctx.paths.images)).get(digest) ?? [];
  return [...machines, ...(groupImageUsers([], await listWarm(ctx)).get(digest) ?? [])];
}

/** As `imageUsers`, of what is known already. */
export function groupImageUsers(
  instances: readonly Instance[],
  warm: readonly WarmState[],
): Map<string, string[]> {
  const users = new Map<string, string[]>();
  const add = (digest: string, name: string): void => {
    if (digest) users.set(digest, [...(users.get(digest) ?? []), name]);
  };
  for (const { name, state } of instances) add(state.imageDigest, name);
  for (const entry of warm)
    if (entry.state === 'whole') add(entry.manifest.imageDigest, `the warm state ${entry.key.slice(0, 12)}`);
  return users;
}
