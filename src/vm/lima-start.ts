import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { UndoStack } from '../core/undo.ts';
import type { Channel } from '../guest/channel.ts';
import type { Context } from '../host/context.ts';
import { poll, type Deadline } from '../host/deadline.ts';
import { readIfExists } from '../host/files.ts';
import { lastLines } from '../host/run.ts';
import { limactl } from '../lima/limactl.ts';
import { chooseAccelerator } from '../qemu/accelerator.ts';
import { tcgCpu } from '../qemu/argv.ts';
import { hostArchitecture } from '../qemu/binary.ts';
import type { Instance } from './instance.ts';
import { limaFolder, lookAtLima } from './lima-look.ts';
import { provisioningFailed } from './provisioning.ts';
import type { State } from './state.ts';
import { writeState } from './store.ts';

/**
 * Where KVM is there and doesn't work, Lima would take it all the same, as it only looks whether there is a device; both
 * options are needed, or Lima adds its own beside them.
 */
export async function limaEnvironment(
  ctx: Context,
  platform: NodeJS.Platform = process.platform,
): Promise<Record<string, string>> {
  if (platform !== 'linux') return {};
  const architecture = hostArchitecture();
  const variable = `QEMU_SYSTEM_${architecture.toUpperCase()}`;
  if (ctx.env[variable]) return {};
  const { accelerator } = await chooseAccelerator(ctx, { architecture, choice: 'auto', platform });
  if (accelerator !== 'tcg') return {};
  const [machine, cpu] =
    architecture === 'x86_64' ? ['q35,vmport=off,accel=tcg', tcgCpu] : ['virt,accel=tcg', 'max'];
  return { [variable]: `qemu-system-${architecture} -machine ${machine} -cpu ${cpu}` };
}

/**
 * Has Lima start a machine, and waits until it and its provisioning are through. Lima itself waits in vain for what a
 * failed script should have brought, and says nothing of it; so the guest's own log is watched beside.
 */
export async function startLima(
  ctx: Context,
  instance: Instance,
  channel: Channel,
  undo: UndoStack,
  deadline: Deadline,
): Promise<Instance> {
  const home = instance.state.limaHome ?? ctx.paths.lima;
  const { name } = instance;
  await requireThere(ctx, instance);
  // Lima leaves a machine running whose start failed.
  undo.add('the running machine', async () => {
    // A connection that can't be closed ends with the machine.
    await channel.close().catch(() => undefined);
    await limactl(ctx, home, ['stop', '--force', name], { effect: 'write', deadline: 60_000 });
  });
  const starting: State = { ...instance.state, phase: 'starting', started: new Date().toISOString() };
  await writeState(ctx, name, starting);
  await step(ctx.emit, 'boot', 'Starting it with Lima', (progress) =>
    startWatched(ctx, instance, channel, deadline, progress),
  );
  const started: Instance = { ...instance, state: { ...starting, phase: 'started' } };
  await writeState(ctx, name, started.state);
  return started;
}

/** What Lima doesn't have it makes anew when told to start it, from a template of its own that shares the user's home. */
async function requireThere(ctx: Context, instance: Instance): Promise<void> {
  const { lost, problem } = await lookAtLima(ctx, instance);
  if (lost === undefined) return;
  throw new Failure('wrong-state', `"${instance.name}" is broken: ${problem ?? lost}`, {
    hint: `zfsdev delete ${instance.name} removes what is left of it`,
  });
}

async function startWatched(
  ctx: Context,
  instance: Instance,
  channel: Channel,
  deadline: Deadline,
  progress: (text: string) => void,
): Promise<void> {
  const home = instance.state.limaHome ?? ctx.paths.lima;
  const over = new AbortController();
  const signal = AbortSignal.any([ctx.signal, over.signal]);
  const failed = watchProvisioning(ctx, instance, channel, deadline, signal);
  try {
    const seconds = Math.ceil(deadline.left() / 1000);
    const start = limactl(ctx, home, ['start', `--timeout=${seconds}s`, instance.name], {
      effect: 'write',
      deadline: deadline.left() + 30_000,
      signal,
      env: await limaEnvironment(ctx),
      onMessage: progress,
    });
    start.catch(() => undefined);
    const words = await Promise.race([start.then(() => undefined), failed]);
    if (words !== undefined) throw provisioningFailed(instance, words);
    // Without a pool, nothing that Lima waits for tells whether the scripts went well.
    const left = await provisioningWords(ctx, channel).catch(() => undefined);
    if (left) throw provisioningFailed(instance, left);
  } catch (error) {
    throw explained(ctx, instance, deadline, error);
  } finally {
    over.abort();
  }
}

/** Lima's "did not receive an event" is a time that ran out; what the machine said last is worth more than that. */
function explained(ctx: Context, instance: Instance, deadline: Deadline, error: unknown): unknown {
  if (!(error instanceof Failure) || (error.reason !== 'process' && error.reason !== 'deadline'))
    return error;
  const late = deadline.left() === 0 || error.reason === 'deadline';
  const log = readIfExists(join(limaFolder(ctx, instance), 'serial.log'));
  const words = lastLines(log ?? '', 15);
  return new Failure(
    late ? 'deadline' : 'process',
    late ? `"${instance.name}" was not ready within ${Math.round(deadline.total / 1000)} s` : error.message,
    {
      detail: [error.detail, words && `its console:\n${words}`].filter(Boolean).join('\n'),
      hint: late
        ? '--timeout gives it longer'
        : (error.hint ?? 'limactl is what failed: its words are above'),
      cause: error,
    },
  );
}

/** Resolves with the words of a script that failed, as soon as there are any; never if none does. */
async function watchProvisioning(
  ctx: Context,
  instance: Instance,
  channel: Channel,
  deadline: Deadline,
  signal: AbortSignal,
): Promise<string> {
  const config = join(limaFolder(ctx, instance), 'ssh.config');
  const former = await modified(config);
  const look = async (): Promise<string | undefined> => {
    // The one of the start before may lead to a port that is another machine's now.
    if ((await modified(config)) === former) return undefined;
    try {
      return (await provisioningWords({ ...ctx, signal }, channel)) || undefined;
    } catch (error) {
      if (error instanceof Failure) return undefined;
      throw error;
    }
  };
  try {
    return await poll('its provisioning', look, { deadline, signal, longest: 3_000 });
  } catch {
    // Lima's own end of the wait is the one to tell.
    return new Promise<string>(() => undefined);
  }
}

/** When a file was written last, in milliseconds; undefined if it isn't there. */
async function modified(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => undefined,
  );
}

/** Of the last boot's log, the lines up to the first script that failed. */
const failedScript = `
awk '/^Cloud-init .* running .init/ { n = 0; failed = 0 }
  !failed { line[n++] = $0 }
  /WARNING: Failed to execute/ { failed = 1 }
  END { if (failed) for (i = (n > 30 ? n - 30 : 0); i < n; i++) print line[i] }' /var/log/cloud-init-output.log`;

async function provisioningWords(ctx: Context, channel: Channel): Promise<string> {
  const { exitCode, stdout } = await channel.exec(['sh', '-c', failedScript], {
    deadline: 60_000,
    signal: ctx.signal,
  });
  return exitCode === 0 ? stdout.trim() : '';
}
