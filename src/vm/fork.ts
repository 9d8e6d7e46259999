import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';
import { Failure } from '../core/errors.ts';
import type { UndoStack } from '../core/undo.ts';
import { adoptFork } from '../guest/agent-channel.ts';
import type { Context } from '../host/context.ts';
import { poll, type Deadline } from '../host/deadline.ts';
import { inspectImage } from '../image/store.ts';
import { connectQmp, type Qmp } from '../qemu/qmp.ts';
import type { Spec } from '../template/spec.ts';
import { agentTarget } from './agent-target.ts';
import { hostidOf } from './identity.ts';
import { layOutInstance, type Secrets } from './instance-files.ts';
import type { Instance } from './instance.ts';
import { killMachine } from './machine-process.ts';
import { launch } from './qemu-start.ts';
import type { State } from './state.ts';
import { writeState } from './store.ts';
import { fingerprintFile, type WarmManifest } from './warm-store.ts';

/** A warm state that can't be forked from: its files are damaged. Nothing of it has run. */
export class WarmDamaged extends Error {
  override readonly name = 'WarmDamaged';
}

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
  if (stored?.state !== 'whole') throw new WarmDamaged('the image it stands on is gone');
  const forked: State = {
    ...state,
    imageDigest: warm.imageDigest,
    warm: warm.key,
    diskBound: state.diskBound,
    accelerator: warm.accelerator,
  };
  await writeState(ctx, spec.name, forked);
  const whole = checkFiles(from, warm);
  // Its outcome is asked for below; until then a failure of something else must not make it unhandled.
  whole.catch(() => undefined);
  const secrets = await layOutInstance(ctx, spec, forked, { image: stored.image, backing: from.disk });
  undo.add('the running machine', () => killMachine(ctx, paths.pid));
  const memory = await open(from.memory, 'r');
  let running: Instance;
  try {
    running = await launch(ctx, { name: spec.name, spec, state: forked }, undo, memory);
  } finally {
    await memory.close();
  }
  const qmp = await connectQmp(paths.qmp, { deadline, signal: ctx.signal });
  try {
    await waitUntilRestored(ctx, spec, qmp, deadline);
    await whole;
    await qmp.execute('cont');
  } finally {
    qmp.close();
  }
  await takeIdentity(ctx, running, warm, secrets, deadline);
  const started: Instance = { ...running, state: { ...running.state, phase: 'started' } };
  await writeState(ctx, spec.name, started.state);
  return started;
}

/** @throws WarmDamaged if a file isn't what was saved. */
async function checkFiles(
  from: { readonly memory: string; readonly disk: string },
  warm: WarmManifest,
): Promise<void> {
  const [memory, disk] = await Promise.all([fingerprintFile(from.memory), fingerprintFile(from.disk)]);
  if (memory.sha256 !== warm.memory.sha256) throw new WarmDamaged('its memory file has changed');
  if (disk.sha256 !== warm.disk.sha256) throw new WarmDamaged('its disk has changed');
}

async function waitUntilRestored(ctx: Context, spec: Spec, qmp: Qmp, deadline: Deadline): Promise<void> {
  try {
    await poll(
      'the restore',
      async () => ((await qmp.execute('query-status')).status === 'inmigrate' ? undefined : true),
      { deadline, signal: ctx.signal, longest: 10 },
    );
  } catch (error) {
    // QEMU ends when it can't make sense of what it reads.
    if (error instanceof Failure && error.reason === 'process')
      throw new WarmDamaged(`QEMU could not restore "${spec.name}"`);
    throw error;
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
    secret: () => Promise.resolve(warm.agentKey),
  };
  const facts = await adoptFork(
    target,
    {
      hostname: name,
      machineId: state.machineId,
      hostid: hostidOf(state),
      mac: state.mac,
      sshHostKey: secrets.hostKey.privateKey,
      sshHostPublicKey: secrets.hostKey.publicKey,
      agentKey: secrets.agentKey,
      entropy: randomBytes(64).toString('hex'),
    },
    { deadline, signal: ctx.signal },
  );
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
