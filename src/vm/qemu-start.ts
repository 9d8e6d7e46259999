import { chmod, readFile, rename, rm } from 'node:fs/promises';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { exists, readIfExists, writeFileAtomically } from '../host/files.ts';
import { requireKernel } from '../image/kernel-store.ts';
import { inspectImage, type Image } from '../image/store.ts';
import { chooseAccelerator } from '../qemu/accelerator.ts';
import { planArgv } from '../qemu/argv.ts';
import { findQemu, hostArchitecture } from '../qemu/binary.ts';
import { findUefi } from '../qemu/firmware.ts';
import { kernelCommandLine, type Boot, type Machine } from '../qemu/machine.ts';
import { isCloudImage } from '../template/spec.ts';
import type { Instance } from './instance.ts';
import { findMachine, killMachine } from './machine-process.ts';
import { pauseOfMachine, pauseWords } from './pause.ts';
import { freePort } from './ports.ts';
import { waitUntilReady, type Guest } from './readiness.ts';
import type { State } from './state.ts';
import { drivesOf } from './storage-devices.ts';
import { layOutStorage, placesOf } from './storage-files.ts';
import { writeState } from './store.ts';
import { serveShares } from './virtiofsd.ts';

/**
 * Starts QEMU and waits until the guest is ready. A machine that an interrupted start left running is not started
 * again: the wait goes on where that one was cut off.
 * @param wait for a guest that tells in another way than the built-in images how far it is.
 */
export async function startMachine(
  ctx: Context,
  instance: Instance,
  undo: UndoStack,
  deadline: Deadline,
  wait: (running: Instance) => Promise<void> = (running) => ready(ctx, running, deadline),
): Promise<Instance> {
  const paths = ctx.paths.instance(instance.name);
  const present = (await findMachine(ctx, paths.pid)) !== undefined;
  // Before the machine is registered to be ended: what is made for it goes after it does.
  if (!present) await layOutStorage(ctx, instance, undo);
  undo.add('the running machine', () => killMachine(ctx, paths.pid));
  let running = present ? instance : await launch(ctx, await withAccelerator(ctx, instance), undo);
  try {
    await wait(running);
  } catch (error) {
    if (!diedEarlyUnderEmulation(ctx, running, error)) throw error;
    ctx.emit({ type: 'notice', level: 'info', text: 'the emulated kernel died early; trying once more' });
    await killMachine(ctx, paths.pid);
    running = await launch(ctx, running, undo);
    await wait(running);
  }
  const started: Instance = {
    ...running,
    state: { ...running.state, phase: 'started', ...placesOf(ctx, running) },
  };
  await writeState(ctx, instance.name, started.state);
  return started;
}

function ready(ctx: Context, instance: Instance, deadline: Deadline): Promise<void> {
  return waitUntilReady(ctx, instance.spec, guestOf(ctx, instance), deadline);
}

/** What tells of a guest while it boots. */
export function guestOf(ctx: Context, { name }: Pick<Instance, 'name'>): Guest {
  const paths = ctx.paths.instance(name);
  const isAlive = async (): Promise<boolean> => (await findMachine(ctx, paths.pid)) !== undefined;
  const standsStill = async (): Promise<string | undefined> => {
    const pause = await pauseOfMachine(ctx, name);
    return pause && pauseWords[pause];
  };
  return { name, eventLog: paths.events, consoleLog: paths.console, isAlive, standsStill };
}

/**
 * QEMU 7.2's emulation of x86 with several threads loses a race now and then while the kernel patches its own code in
 * the first seconds: 1 boot of 18 died of it. That is no fault of the machine, so it is worth a second try.
 */
function diedEarlyUnderEmulation(ctx: Context, { name, spec, state }: Instance, error: unknown): boolean {
  if (!(error instanceof Failure) || error.reason !== 'guest' || state.accelerator !== 'tcg') return false;
  if (isCloudImage(spec.image)) return error.data['beforeContact'] === true;
  const events = readIfExists(ctx.paths.instance(name).events) ?? '';
  return !/^(systemd|failed)\b/m.test(events);
}

async function withAccelerator(ctx: Context, instance: Instance): Promise<Instance> {
  const choice = await chooseAccelerator(ctx, {
    architecture: hostArchitecture(),
    choice: instance.spec.accelerator,
  });
  if (choice.accelerator === 'tcg' && choice.reason)
    ctx.emit({ type: 'notice', level: 'info', text: choice.reason });
  return { ...instance, state: { ...instance.state, accelerator: choice.accelerator } };
}

/** A port that was free a moment ago may be taken now; then QEMU says so at once and another one is tried. */
const portAttempts = 5;

/** What a machine that does not boot but is restored stands on. */
export interface Restored {
  /** The file with the saved memory. */
  readonly memory: string;
  readonly image: Image;
}

/** Starts QEMU in the background; one that is restored waits for its saved state, and `paused` for whatever it is told. */
export async function launch(
  ctx: Context,
  instance: Instance,
  undo: UndoStack,
  restored?: Restored | 'paused',
): Promise<Instance> {
  const paths = ctx.paths.instance(instance.name);
  await Promise.all(
    [paths.events, paths.pid, paths.qmp, paths.agent].map((path) => rm(path, { force: true })),
  );
  // The console of the start before stays readable: it may tell why there is another one.
  if (exists(paths.console)) await rename(paths.console, paths.formerConsole);
  undo.add('the state before the start', () =>
    writeState(ctx, instance.name, { ...instance.state, phase: 'created' }),
  );
  for (let attempt = 1; ; attempt += 1) {
    const state: State = {
      ...instance.state,
      phase: 'starting',
      started: new Date().toISOString(),
      sshPort: await freePort(),
      ...(isCloudImage(instance.spec.image) ? {} : { commandPort: await freePort() }),
    };
    await writeState(ctx, instance.name, state);
    const candidate: Instance = { ...instance, state };
    const servers = await serveShares(ctx, candidate);
    try {
      const argv = await argvOf(ctx, candidate, restored);
      // It goes on in the background by itself, so it is never interrupted half-way: whatever runs has a pid file.
      await ctx.run(argv, {
        effect: 'write',
        deadline: 60_000,
        detached: true,
      });
      await Promise.all([paths.qmp, paths.agent].map((path) => chmod(path, 0o600)));
      return candidate;
    } catch (error) {
      const words = servers.words();
      await servers.end();
      const portTaken =
        error instanceof Failure && error.detail?.includes('Could not set up host forwarding rule');
      if (!portTaken || attempt === portAttempts) throw atStart(error, instance.name, words);
    }
  }
}

function atStart(error: unknown, name: InstanceName, serversWords: string): unknown {
  if (!(error instanceof Failure) || error.reason !== 'process') return error;
  const detail = [error.detail, serversWords].filter(Boolean).join('\n');
  return new Failure('process', `QEMU did not start "${name}": ${error.message}`, {
    ...(detail === '' ? {} : { detail }),
    hint: 'zfsdev doctor looks whether QEMU works on this host',
    data: error.data,
    cause: error,
  });
}

async function argvOf(
  ctx: Context,
  instance: Instance,
  restored: Restored | 'paused' | undefined,
): Promise<[string, ...string[]]> {
  const { binary } = await findQemu(ctx, hostArchitecture());
  if (restored === undefined || restored === 'paused') {
    const booting = machineOf(ctx, instance, await bootOf(ctx, instance));
    return [binary, ...planArgv({ ...booting, paused: restored === 'paused' })];
  }
  const { memory, image } = restored;
  const machine: Machine = {
    // Never run, as the kernel is in the saved memory; its own initrd is still being written.
    ...machineOf(ctx, instance, kernelBoot(image.kernel, image.initrd, instance.state)),
    ram: { kind: 'file', path: memory, shared: false },
    restores: true,
  };
  return [binary, ...planArgv(machine)];
}

/** @throws Failure `image` if what it stands on is gone or broken. */
async function bootOf(ctx: Context, instance: Instance): Promise<Boot> {
  const { name, spec, state } = instance;
  const found = await inspectImage(ctx.paths.images, state.imageDigest);
  const { initrd } = ctx.paths.instance(name);
  if (found?.state === 'whole') {
    const { image } = found;
    if (image.kind !== 'built') return layOutFirmware(ctx, instance);
    const kernel = spec.kernel ? requireKernel(ctx.paths, spec.kernel).image : image.kernel;
    return kernelBoot(kernel, initrd, state);
  }
  throw new Failure(
    'image',
    `the image "${name}" stands on is ${found ? `broken: ${found.reason}` : 'gone'}`,
    {
      hint: isCloudImage(spec.image)
        ? `zfsdev image pull brings it back: ${spec.image.location}`
        : 'zfsdev image build builds the present one; if its digest is the same, the instance works again',
      data: { digest: state.imageDigest },
    },
  );
}

/** A boot of a built-in image, by its own kernel or one that was taken in. */
export function kernelBoot(kernel: string, initrd: string, { accelerator = 'tcg' }: State): Boot {
  return { kind: 'kernel', kernel, initrd, commandLine: kernelCommandLine(hostArchitecture(), accelerator) };
}

/** A boot of a cloud image, by the firmware that its template names. @throws Failure `dependency` */
export async function firmwareBoot(ctx: Context, { name, spec: { image } }: Instance): Promise<Boot> {
  const { seed, variables } = ctx.paths.instance(name);
  if (!isCloudImage(image) || image.firmware === 'bios') return { kind: 'firmware', seed };
  const uefi = await findUefi(ctx, hostArchitecture());
  const own = uefi.variables && { variables: { ...uefi.variables, path: variables } };
  return { kind: 'firmware', seed, uefi: { code: uefi.code, ...own } };
}

/**
 * As `firmwareBoot`, with the file that it takes. The variables begin anew at each start: what boots is what lies where
 * removable disks have it, as with Lima, and a firmware that was updated meanwhile finds the ones that fit it.
 */
async function layOutFirmware(ctx: Context, instance: Instance): Promise<Boot> {
  const boot = await firmwareBoot(ctx, instance);
  if (boot.kind === 'kernel' || !boot.uefi?.variables) return boot;
  const { variables } = await findUefi(ctx, hostArchitecture());
  if (variables) await writeFileAtomically(boot.uefi.variables.path, await readFile(variables.path));
  return boot;
}

/** The planner's view of an instance. */
export function machineOf(ctx: Context, { name, spec, state }: Instance, boot: Boot): Machine {
  const paths = ctx.paths.instance(name);
  return {
    name,
    architecture: hostArchitecture(),
    accelerator: state.accelerator ?? 'tcg',
    cpus: spec.cpus,
    memory: spec.memory,
    boot,
    disk: paths.disk,
    ...(spec.kernel ? { modules: ctx.paths.kernel(spec.kernel.digest).modules } : {}),
    ...(spec.storage?.length ? { storage: drivesOf(ctx, name, spec.storage) } : {}),
    ...(state.seed ? { ram: { kind: 'file', path: paths.memory, shared: true } } : {}),
    mac: state.mac,
    sshPort: state.sshPort ?? 0,
    ...(boot.kind === 'kernel' ? { commandPort: state.commandPort ?? 0 } : {}),
    qmpSocket: paths.qmp,
    agentSocket: paths.agent,
    consoleLog: paths.console,
    eventLog: paths.events,
    pidFile: paths.pid,
  };
}
