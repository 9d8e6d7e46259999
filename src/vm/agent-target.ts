import type { AgentTarget } from '../guest/agent-channel.ts';
import type { Context } from '../host/context.ts';
import { readIfExists } from '../host/files.ts';
import type { Instance } from './instance.ts';

/** Where an instance's agent is reached, and with which secret. */
export function agentTarget(ctx: Context, { name, state }: Instance): AgentTarget {
  const { agentKey } = ctx.paths.instance(name);
  return {
    name,
    port: state.commandPort ?? 0,
    secret: () => (readIfExists(agentKey) ?? '').trim(),
  };
}
