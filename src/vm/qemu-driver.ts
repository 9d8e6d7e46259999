import { chmod, rm } from 'node:fs/promises';
import type { Claim } from '../budget/admission.ts';
import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Channel } from '../guest/channel.ts';
import { newHostKey, userPublicKey } from '../guest/keys.ts';
import { sshChannel } from '../guest/ssh.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { exists, readIfExists, writeFileAtomically } from '../host/files.ts';
import { checkSocketPath } from '../host/paths.ts';
import { printable } from '../host/run.ts';
import { ensureImage, findImage } from '../image/build.ts';
import { appendSeed } from '../image/cpio.ts';
import { imageBuildClaims, recipeOf } from '../image/recipe.ts';
import { inspectImage } from '../image/store.ts';
import { temporaryFolder } from '../image/workplace.ts';
import { chooseAccelerator } from '../qemu/accelerator.ts';
import { planArgv } from '../qemu/argv.ts';
import { findQemu, findQemuImg, hostArchitecture } from '../qemu/binary.ts';
import { createOverlay, measure } from '../qemu/img.ts';
import { kernelCommandLine, type Machine } from '../qemu/machine.ts';
import { connectQmp } from '../qemu/qmp.ts';
import type { Spec } from '../template/spec.ts';
import type { CreateOptions, Driver, StopOptions } from './driver.ts';
import { seedFiles } from './identity.ts';
import type { Instance } from './instance.ts';
import { findMachine, killMachine, waitForEnd } from './machine-process.ts';
import { freePort } from './ports.ts';
import { waitUntilReady } from './readiness.ts';
import { newState, type State } from './state.ts';
import { writeState } from './store.ts';

/** ssh appends a random suffix of this length while it makes its control socket. */
const controlSuffix = '.0123456789abcdef';

/** Runs instances by qemu-system directly. */
export function qemuDriver(ctx: Context): Driver {
  return {
    create: (spec, state, options) => create(ctx, spec, state, options),
    start: (instance, undo, deadline) => start(ctx, instance, undo, deadline),
    stop: (instance, options) => stop(ctx, instance, options),
    remove: (name) => remove(ctx, name),
    channel: (instance) => channelOf(ctx, instance),
    claims: (spec) => claims(ctx, spec),
    check: (spec) => check(ctx, spec),
    planned: (spec) => planned(ctx, spec),
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
  const present = await findImage(ctx, await recipeOf(spec.image));
  return [
    { what: `the disk of ${spec.name}`, path: folder, bound: fullyAllocated, allocated: 0 },
    ...(present ? [] : imageBuildClaims(ctx.paths.images, temporaryFolder(ctx.env))),
  ];
}

async function planned(ctx: Context, spec: Spec): Promise<string[]> {
  const image = await findImage(ctx, await recipeOf(spec.image));
  const state: State = { ...newState('qemu'), accelerator: 'tcg' };
  const machine = machineOf(ctx, { name: spec.name, spec, state }, image?.kernel ?? 'KERNEL');
  const { binary } = await findQemu(ctx, hostArchitecture());
  return [
    image
      ? `use the image ${image.digest.slice(0, 12)}`
      : `build the image (${spec.image.flavour}, ${spec.image.suite})`,
    `create ${ctx.paths.instance(spec.name).disk}, ${formatBytes(spec.disk)} virtual`,
    `run ${printable([binary, ...planArgv(machine)])}`,
  ];
}

async function create(ctx: Context, spec: Spec, state: State, options: CreateOptions): Promise<Instance> {
  const paths = ctx.paths.instance(spec.name);
  const recipe = await recipeOf(spec.image);
  // From here on the image counts as used: no prune takes it away between its build and the overlay's creation.
  await writeState(ctx, spec.name, { ...state, imageDigest: recipe.digest });
  const image = await ensureImage(ctx, recipe, options);
  return step(
    ctx.emit,
    'disk',
    'Creating its disk',
    async () => {
      await createOverlay(ctx, {
        path: paths.disk,
        backing: image.disk,
        backingFormat: 'qcow2',
        size: spec.disk,
      });
      const hostKey = await newHostKey(ctx, spec.name);
      await writeFileAtomically(paths.knownHosts, `${spec.name} ${hostKey.publicKey}`);
      const seed = seedFiles(spec, state, await userPublicKey(ctx), hostKey);
      await appendSeed(image.initrd, paths.initrd, seed);
      const created: State = { ...state, phase: 'created', imageDigest: image.digest };
      await writeState(ctx, spec.name, created);
      return { name: spec.name, spec, state: created };
    },
    () => formatBytes(spec.disk),
  );
}

async function start(
  ctx: Context,
  instance: Instance,
  undo: UndoStack,
  deadline: Deadline,
): Promise<Instance> {
  const paths = ctx.paths.instance(instance.name);
  const choice = await chooseAccelerator(ctx, {
    architecture: hostArchitecture(),
    choice: instance.spec.accelerator,
  });
  if (choice.accelerator === 'tcg' && choice.reason)
    ctx.emit({ type: 'notice', level: 'info', text: choice.reason });
  const starting: State = {
    ...instance.state,
    phase: 'starting',
    accelerator: choice.accelerator,
    started: new Date().toISOString(),
  };
  undo.add('the state before the start', () =>
    writeState(ctx, instance.name, { ...instance.state, phase: 'created' }),
  );
  const consoleBefore = await lengthOf(paths.console);
  const running = await launch(ctx, { ...instance, state: starting }, undo);
  await waitUntilReady(
    ctx,
    instance.spec,
    {
      name: instance.name,
      eventLog: paths.events,
      consoleLog: paths.console,
      consoleBefore,
      isAlive: async () => (await findMachine(ctx, paths.pid)) !== undefined,
    },
    deadline,
  );
  const started: Instance = { ...running, state: { ...running.state, phase: 'started' } };
  await writeState(ctx, instance.name, started.state);
  return started;
}

async function lengthOf(path: string): Promise<number> {
  return Buffer.byteLength((await readIfExists(path)) ?? '');
}

/** A port that was free a moment ago may be taken now; then QEMU says so at once and another one is tried. */
const portAttempts = 5;

async function launch(ctx: Context, instance: Instance, undo: UndoStack): Promise<Instance> {
  const paths = ctx.paths.instance(instance.name);
  await closeChannel(ctx, instance);
  await Promise.all(
    [paths.events, paths.pid, paths.qmp, paths.agent].map((path) => rm(path, { force: true })),
  );
  undo.add('the running machine', () => killMachine(ctx, paths.pid));
  for (let attempt = 1; ; attempt += 1) {
    const state: State = { ...instance.state, sshPort: await freePort() };
    await writeState(ctx, instance.name, state);
    const candidate: Instance = { ...instance, state };
    try {
      const argv = await argvOf(ctx, candidate);
      // It goes on in the background by itself, so it is never interrupted half-way: whatever runs has a pid file.
      await ctx.run(argv, { effect: 'write', deadline: 60_000, detached: true });
      await Promise.all([paths.qmp, paths.agent].map((path) => chmod(path, 0o600)));
      return candidate;
    } catch (error) {
      const portTaken =
        error instanceof Failure && error.detail?.includes('Could not set up host forwarding rule');
      if (!portTaken || attempt === portAttempts) throw atStart(error, instance.name);
    }
  }
}

function atStart(error: unknown, name: InstanceName): unknown {
  if (!(error instanceof Failure) || error.reason !== 'process') return error;
  return new Failure('process', `QEMU did not start "${name}": ${error.message}`, {
    ...(error.detail === undefined ? {} : { detail: error.detail }),
    hint: 'zfsdev doctor looks whether QEMU works on this host',
    data: error.data,
    cause: error,
  });
}

async function argvOf(ctx: Context, instance: Instance): Promise<[string, ...string[]]> {
  const found = await inspectImage(ctx.paths.images, instance.state.imageDigest);
  if (found?.state !== 'whole') {
    throw new Failure(
      'image',
      `the image "${instance.name}" stands on is ${found ? `broken: ${found.reason}` : 'gone'}`,
      {
        hint: 'zfsdev image build builds the present one; if its digest is the same, the instance works again',
        data: { digest: instance.state.imageDigest },
      },
    );
  }
  const { binary } = await findQemu(ctx, hostArchitecture());
  return [binary, ...planArgv(machineOf(ctx, instance, found.image.kernel))];
}

function machineOf(ctx: Context, { name, spec, state }: Instance, kernel: string): Machine {
  const paths = ctx.paths.instance(name);
  return {
    name,
    architecture: hostArchitecture(),
    accelerator: state.accelerator ?? 'tcg',
    cpus: spec.cpus,
    memory: spec.memory,
    kernel,
    initrd: paths.initrd,
    commandLine: kernelCommandLine(hostArchitecture()),
    disk: paths.disk,
    mac: state.mac,
    sshPort: state.sshPort ?? 0,
    qmpSocket: paths.qmp,
    agentSocket: paths.agent,
    consoleLog: paths.console,
    eventLog: paths.events,
    pidFile: paths.pid,
  };
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
}

async function remove(ctx: Context, name: InstanceName): Promise<void> {
  const paths = ctx.paths.instance(name);
  await killMachine(ctx, paths.pid);
  await rm(paths.control, { force: true });
  await rm(paths.folder, { recursive: true, force: true });
}

function channelOf(ctx: Context, instance: Instance): Channel {
  const paths = ctx.paths.instance(instance.name);
  return sshChannel(ctx, {
    name: instance.name,
    port: instance.state.sshPort ?? 0,
    user: 'root',
    privateKey: ctx.paths.privateKey,
    knownHosts: paths.knownHosts,
    controlSocket: paths.control,
  });
}

async function closeChannel(ctx: Context, instance: Instance): Promise<void> {
  if (await exists(ctx.paths.instance(instance.name).control)) await channelOf(ctx, instance).close();
}
