import { rm } from 'node:fs/promises';
import type { Claim } from '../budget/admission.ts';
import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import { together } from '../core/together.ts';
import type { Channel, Streams } from '../guest/channel.ts';
import { agentChannel } from '../guest/agent-channel.ts';
import { sshChannel } from '../guest/ssh.ts';
import type { Context } from '../host/context.ts';
import { exists } from '../host/files.ts';
import { checkSocketPath } from '../host/paths.ts';
import { printable } from '../host/run.ts';
import { ensureImage, findImage } from '../image/build.ts';
import { imageBuildClaims, recipeOf } from '../image/recipe.ts';
import { temporaryFolder } from '../image/workplace.ts';
import { planArgv } from '../qemu/argv.ts';
import { findQemu, findQemuImg, hostArchitecture } from '../qemu/binary.ts';
import { measure } from '../qemu/img.ts';
import { connectQmp } from '../qemu/qmp.ts';
import { builtImage, type Spec } from '../template/spec.ts';
import type { CreateOptions, Driver, StopOptions } from './driver.ts';
import { standingOn } from './images.ts';
import { saveWarm } from './warm-save.ts';
import { forkMachine } from './fork.ts';
import { layOutDisk, layOutIdentity } from './instance-files.ts';
import type { Instance } from './instance.ts';
import { killMachine, waitForEnd } from './machine-process.ts';
import { agentTarget } from './agent-target.ts';
import { qemuSnapshots } from './qemu-snapshot.ts';
import { giveBackMemory } from './qemu-snapshot-offline.ts';
import { kernelBoot, machineOf, startMachine } from './qemu-start.ts';
import { newState, type State } from './state.ts';
import { storageClaims } from './storage-claims.ts';
import { plannedStorage } from './storage-check.ts';
import { writeState } from './store.ts';

/** ssh appends a random suffix of this length while it makes its control socket. */
const controlSuffix = '.0123456789abcdef';

/** With what the driver of cloud images, which has another way of starting, needs besides. */
export interface QemuDriver extends Driver {
  /** Lets go of the connection of the start before, whose port may be another machine's by now. */
  closeChannel(instance: Instance): Promise<void>;
}

/** Runs instances by qemu-system directly. */
export function qemuDriver(ctx: Context): QemuDriver {
  return {
    create: (spec, state, options) => create(ctx, spec, state, options),
    start: async (instance, undo, deadline) => {
      await closeChannel(ctx, instance);
      return startMachine(ctx, instance, undo, deadline);
    },
    stop: (instance, options) => stop(ctx, instance, options),
    remove: (name) => remove(ctx, name),
    channel: (instance, streams) => channelOf(ctx, instance, streams),
    claims: (spec) => claims(ctx, spec),
    check: (spec) => check(ctx, spec),
    planned: (spec) => planned(ctx, spec),
    fork: (spec, state, warm, undo, deadline) => forkMachine(ctx, spec, state, warm, undo, deadline),
    saveWarm: (instance, key) => saveWarm(ctx, instance, key),
    closeChannel: (instance) => closeChannel(ctx, instance),
    snapshots: qemuSnapshots(ctx),
  };
}

async function check(ctx: Context, spec: Spec): Promise<void> {
  const paths = ctx.paths.instance(spec.name);
  checkSocketPath(paths.qmp);
  checkSocketPath(paths.control + controlSuffix);
  await Promise.all([findQemu(ctx, hostArchitecture()), findQemuImg(ctx)]);
}

/** The disk's fully allocated bound, and what building its image takes if that isn't there. */
async function claims(ctx: Context, spec: Spec): Promise<Claim[]> {
  const { folder } = ctx.paths.instance(spec.name);
  const { fullyAllocated } = await measure(ctx, { size: spec.disk });
  const present = await findImage(ctx, await recipeOf(builtImage(spec)));
  return [
    { what: `the disk of ${spec.name}`, path: folder, bound: fullyAllocated, allocated: 0 },
    ...(await storageClaims(ctx, spec)),
    ...(present ? [] : imageBuildClaims(ctx.paths.images, temporaryFolder(ctx.env))),
  ];
}

async function planned(ctx: Context, spec: Spec): Promise<string[]> {
  const wanted = builtImage(spec);
  const image = await findImage(ctx, await recipeOf(wanted));
  const state: State = { ...newState('qemu'), accelerator: 'tcg' };
  const own = spec.kernel && ctx.paths.kernel(spec.kernel.digest).image;
  const { initrd } = ctx.paths.instance(spec.name);
  const boot = kernelBoot(own ?? image?.kernel ?? 'KERNEL', initrd, state);
  const machine = machineOf(ctx, { name: spec.name, spec, state }, boot);
  const { binary } = await findQemu(ctx, hostArchitecture());
  return [
    image
      ? `use the image ${image.digest.slice(0, 12)}`
      : `build the image (${wanted.flavour}${wanted.tools ? ' with build tools' : ''}, ${wanted.suite})`,
    `create ${ctx.paths.instance(spec.name).disk}, ${formatBytes(spec.disk)} virtual`,
    ...(await plannedStorage(ctx, spec)),
    `run ${printable([binary, ...planArgv(machine)])}`,
  ];
}

async function create(ctx: Context, spec: Spec, state: State, options: CreateOptions): Promise<Instance> {
  const recipe = await recipeOf(builtImage(spec));
  // From here on the image counts as used: no prune takes it away between its build and the overlay's creation.
  await writeState(ctx, spec.name, { ...state, imageDigest: recipe.digest });
  const users = (digest: string): Promise<string[]> => standingOn(ctx, digest);
  const image = await ensureImage(ctx, recipe, { ...options, users });
  return step(
    ctx.emit,
    'disk',
    'Creating its disk',
    async () => {
      await together([layOutDisk(ctx, spec, image.disk), layOutIdentity(ctx, spec, state, image)]);
      const created: State = { ...state, phase: 'created', imageDigest: image.digest };
      await writeState(ctx, spec.name, created);
      return { name: spec.name, spec, state: created };
    },
    () => formatBytes(spec.disk),
  );
}

async function stop(ctx: Context, instance: Instance, { force, deadline }: StopOptions): Promise<void> {
  const paths = ctx.paths.instance(instance.name);
  await closeChannel(ctx, instance);
  if (!force) {
    const qmp = await connectQmp(paths.qmp, { deadline, signal: ctx.signal });
    try {
      await qmp.execute('system_powerdown');
    } finally {
      qmp.close();
    }
    try {
      await waitForEnd(ctx, paths.pid, deadline.left(), ctx.signal);
    } catch (error) {
      if (!(error instanceof Failure) || error.reason !== 'deadline') throw error;
      throw new Failure(
        'deadline',
        `"${instance.name}" did not shut down within ${Math.round(deadline.total / 1000)} s`,
        {
          hint: `zfsdev logs ${instance.name} shows its console; zfsdev stop --force ${instance.name} cuts the power`,
          cause: error,
        },
      );
    }
  } else {
    await killMachine(ctx, paths.pid);
  }
  await Promise.all([paths.pid, paths.qmp, paths.agent].map((path) => rm(path, { force: true })));
  // It is stopped, whatever its disk is like.
  await giveBackMemory(ctx, { path: paths.disk }).catch(() => undefined);
}

async function remove(ctx: Context, name: InstanceName): Promise<void> {
  const paths = ctx.paths.instance(name);
  await killMachine(ctx, paths.pid);
  await rm(paths.control, { force: true });
  await rm(paths.folder, { recursive: true, force: true });
}

function channelOf(ctx: Context, instance: Instance, streams?: Streams): Channel {
  const ssh = sshOf(ctx, instance, streams);
  const { commandPort } = instance.state;
  // Commands go to the agent, which costs the guest one process; ssh is there for terminals, and guests without an agent.
  return commandPort === undefined
    ? ssh
    : agentChannel(ctx, { ...agentTarget(ctx, instance), fallback: ssh, ...(streams ? { streams } : {}) });
}

/** The way in by ssh. */
export function sshOf(ctx: Context, instance: Instance, streams?: Streams): Channel {
  const paths = ctx.paths.instance(instance.name);
  return sshChannel(ctx, {
    name: instance.name,
    user: 'root',
    controlSocket: paths.control,
    way: {
      port: instance.state.sshPort ?? 0,
      privateKey: ctx.paths.privateKey,
      knownHosts: paths.knownHosts,
    },
    streams,
  });
}

async function closeChannel(ctx: Context, instance: Instance): Promise<void> {
  if (exists(ctx.paths.instance(instance.name).control)) await sshOf(ctx, instance).close();
}
