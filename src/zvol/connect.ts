import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import type { ZvoldClient } from './api.ts';
import { clientOver } from './client.ts';
import { proxyTo } from './proxy.ts';

/**
 * Opens a way to the volume manager in a running machine.
 * @throws Failure `wrong-state` for a machine that does not run, `guest` for one that can't be reached
 */
export async function connectZvold(ctx: Context, name: InstanceName): Promise<ZvoldClient> {
  return clientOver(await proxyTo(ctx, name), name, ctx.signal);
}
