import { Failure } from '../core/errors.ts';
import type { UndoStack } from '../core/undo.ts';
import { adoptFork } from '../guest/agent-channel.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { builtOf, inspectImage } from '../image/store.ts';
import { loadDevices } from '../qemu/device-state.ts';
import { connectQmp } from '../qemu/qmp.ts';
import type { Spec } from '../template/spec.ts';
import { agentTarget } from './agent-target.ts';
import { adoptionOf, type Secrets } from './identity.ts';
import { layOutDisk, layOutIdentity } from './instance-files.ts';
import type { Instance } from './instance.ts';
import { killMachine } from './machine-process.ts';
import { launch } from './qemu-start.ts';
import type { State } from './state.ts';
import { writeState } from './store.ts';
import { checkWarm, WarmDamaged } from './warm-check.ts';
import type { WarmManifest } from './warm-store.ts';

/**
 * Makes an instance from a warm state: restores its memory in a new QEMU on a fresh overlay and gives the guest an
 * identity of its own. The guest stands still until what QEMU has read is known to be what was saved.
 * @throws WarmDamaged, Failure
 */
export async function forkMachine(
  ctx: Context,
  spec: Spec,
  state: State,
  warm: WarmManifest,
  undo: UndoStack,
  deadline: Deadline,
): Promise<Instance> {
  const paths = ctx.paths.instance(spec.name);
  const from = ctx.paths.warmState(warm.key);
  const stored = await inspectImage(ctx.paths.images, warm.imageDigest);
  const image = builtOf(stored);
  if (!image) throw new WarmDamaged('the image it stands on is gone');
  const forked: State = {
    ...state,
    imageDigest: warm.imageDigest,
    warm: warm.key,
    accelerator: warm.accelerator,
  };
  await writeState(ctx, spec.name, forked);
  const whole = checkWarm(ctx, warm);
  const identity = layOutIdentity(ctx, spec, forked, image);
  // Both are waited for below; until then a failure of either is not unhandled.
  for (const promise of [whole, identity]) promise.catch(() => undefined);
  try {
    await layOutDisk(ctx, spec, from.disk);
    undo.add('the running machine', () => killMachine(ctx, paths.pid));
    const still: Instance = { name: spec.name, spec, state: forked };
    const running = await launch(ctx, still, undo, { memory: from.memory, image });
    await letGo(ctx, spec, from.devices, whole, deadline);
    await takeIdentity(ctx, running, warm, await identity, deadline);
    const started: Instance = { ...running, state: { ...running.state, phase: 'started' } };
    await writeState(ctx, spec.name, started.state);
    return started;
  } finally {
    // Whatever failed: nothing may write to the instance's folder any more when it is undone.
    await Promise.allSettled([whole, identity]);
  }
}

/** Restores the machine and has it go on, once `whole` says that all it stands on is what was saved. */
async function letGo(
  ctx: Context,
  { name }: Spec,
  devices: string,
  whole: Promise<void>,
  deadline: Deadline,
): Promise<void> {
  const patience = { deadline, signal: ctx.signal };
  const qmp = await connectQmp(ctx.paths.instance(name).qmp, patience);
  try {
    await loadDevices(qmp, devices, patience).catch(async (error: unknown) => {
      await whole;
      if (!(error instanceof Failure) || error.reason !== 'process') throw error;
      throw new WarmDamaged(`QEMU could not restore "${name}" from it`);
    });
    await whole;
    await qmp.execute('cont');
  } finally {
    qmp.close();
  }
}

async function takeIdentity(
  ctx: Context,
  { name, spec, state, ...rest }: Instance,
  warm: WarmManifest,
  secrets: Secrets,
  deadline: Deadline,
): Promise<void> {
  const target = {
    ...agentTarget(ctx, { name, spec, state, ...rest }),
    secret: () => warm.agentKey,
  };
  const facts = await adoptFork(target, adoptionOf({ name, state }, secrets), {
    deadline,
    signal: ctx.signal,
  });
  const health = spec.pool && facts.pools.find((pool) => pool.name === spec.pool?.name)?.health;
  if (spec.pool && health !== 'ONLINE') {
    throw new Failure(
      'guest',
      `the pool ${spec.pool.name} of the fork "${name}" is ${health ?? 'not there'}`,
      {
        hint: `zfsdev up ${spec.template} --name ${name} --cold boots one instead`,
      },
    );
  }
}
