import { chmod, rm } from 'node:fs/promises';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { readIfExists } from '../host/files.ts';
import { inspectImage } from '../image/store.ts';
import { chooseAccelerator } from '../qemu/accelerator.ts';
import { planArgv } from '../qemu/argv.ts';
import { findQemu, hostArchitecture } from '../qemu/binary.ts';
import { kernelCommandLine, type Machine } from '../qemu/machine.ts';
import type { Instance } from './instance.ts';
import { findMachine, killMachine } from './machine-process.ts';
import { freePort } from './ports.ts';
import { waitUntilReady } from './readiness.ts';
import type { State } from './state.ts';
import { writeState } from './store.ts';

/**
 * Starts QEMU and waits until the guest is ready. A machine that an interrupted start left running is not started
 * again: the wait goes on where that one was cut off.
 */
export async function startMachine(
  ctx: Context,
  instance: Instance,
  undo: UndoStack,
  deadline: Deadline,
): Promise<Instance> {
  const paths = ctx.paths.instance(instance.name);
  undo.add('the running machine', () => killMachine(ctx, paths.pid));
  const runsAlready = (await findMachine(ctx, paths.pid)) !== undefined;
  const consoleBefore = runsAlready ? 0 : await lengthOf(paths.console);
  const running = runsAlready ? instance : await launch(ctx, await withAccelerator(ctx, instance), undo);
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

async function withAccelerator(ctx: Context, instance: Instance): Promise<Instance> {
  const choice = await chooseAccelerator(ctx, {
    architecture: hostArchitecture(),
    choice: instance.spec.accelerator,
  });
  if (choice.accelerator === 'tcg' && choice.reason)
    ctx.emit({ type: 'notice', level: 'info', text: choice.reason });
  return { ...instance, state: { ...instance.state, accelerator: choice.accelerator } };
}

async function lengthOf(path: string): Promise<number> {
  return Buffer.byteLength((await readIfExists(path)) ?? '');
}

/** A port that was free a moment ago may be taken now; then QEMU says so at once and another one is tried. */
const portAttempts = 5;

async function launch(ctx: Context, instance: Instance, undo: UndoStack): Promise<Instance> {
  const paths = ctx.paths.instance(instance.name);
  await Promise.all(
    [paths.events, paths.pid, paths.qmp, paths.agent].map((path) => rm(path, { force: true })),
  );
  undo.add('the state before the start', () =>
    writeState(ctx, instance.name, { ...instance.state, phase: 'created' }),
  );
  for (let attempt = 1; ; attempt += 1) {
    const state: State = {
      ...instance.state,
      phase: 'starting',
      started: new Date().toISOString(),
      sshPort: await freePort(),
    };
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

/** The planner's view of an instance. */
export function machineOf(ctx: Context, { name, spec, state }: Instance, kernel: string): Machine {
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
