import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PassThrough, Readable } from 'node:stream';
import { exactBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { withUndo } from '../core/undo.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn, longestTimer } from '../host/deadline.ts';
import { actualSize, exists, makePrivateFolder } from '../host/files.ts';
import { freeMemory } from '../host/memory.ts';
import type { BuildPaths } from '../host/paths.ts';
import { chooseAccelerator } from '../qemu/accelerator.ts';
import { hostArchitecture } from '../qemu/binary.ts';
import { resolveSpec } from '../template/resolve.ts';
import type { Spec } from '../template/spec.ts';
import { channelTo, remove, up } from '../vm/lifecycle.ts';
import { driverName } from '../vm/drivers.ts';
import { mainDisk } from '../vm/machine-files.ts';
import { inspect, requireInstance } from '../vm/store.ts';
import { outOfTime, wordsFor, type Builder, type Phase, type PhaseOptions } from './builder.ts';
import { watchGuest } from './guest-watch.ts';
import { appendLog } from './log.ts';
import type { KernelRequest } from './request.ts';
import { scaledTo, type HostResources } from './scale.ts';
import { layOutWork, neededSpace } from './workfiles.ts';

export interface MachineOptions {
  readonly overcommit: boolean;
  readonly mirror?: string | undefined;
  /** What runs the machine, if that was chosen. */
  readonly driver?: string | undefined;
  /** Jobs were asked for, and are not simply the host's processors. */
  readonly jobsAsked: boolean;
  /** What this host has, where that is not to be looked up. */
  readonly host?: HostResources | undefined;
}

const bootDeadline = 20 * 60_000;
/** What a guest gets to say that it is there, in milliseconds. */
const answerDeadline = 2 * 60_000;
/** Both outputs as one, so that the log has their lines whole and in their order. */
const asOne = ['sh', '-c', 'exec sh "$0" "$@" 2>&1', '/build/provision/kernel-build.sh'] as const;

/**
 * A machine of the template kernel-build, as large as the host can have it. Takes over the one that is there, for a build
 * that goes on.
 * @throws Failure as `up`; `no-space`; `guest`
 */
export async function vmBuilder(
  ctx: Context,
  id: string,
  request: KernelRequest,
  options: MachineOptions,
): Promise<Builder> {
  const paths = ctx.paths.build(id);
  const name = machineName(id);
  const present = await inspect(ctx, name);
  const spec = present?.instance?.spec ?? (await specFor(ctx, name, options));
  const emulated = await isEmulated(ctx, spec);
  const deadline = () => deadlineIn(bootDeadline);
  const how = { deadline, overcommit: options.overcommit, cold: true };
  await withUndo(async (undo) => {
    // A machine that was there before is left there: what it has built is worth more than tidiness.
    if (!exists(paths.state)) undo.add('the machine', () => removeMachine(ctx, name, paths));
    await up(ctx, spec, { ...how, ...(options.mirror === undefined ? {} : { mirror: options.mirror }) });
    if (!exists(paths.state)) await layOut(ctx, name, paths, spec, request, options);
  });
  const jobs = options.jobsAsked ? request.jobs : undefined;
  let peak = 0;
  const used = async (): Promise<number> => {
    const { instance } = await requireInstance(ctx, name);
    const now = instance ? actualSize(await mainDisk(ctx, instance)) : 0;
    peak = Math.max(peak, now);
    return now;
  };
  return {
    title: `the machine ${name}`,
    emulated,
    run: (phase, how) => watched(used, () => run(ctx, name, paths, phase, jobs, how)),
    fetch: async (file, target) => {
      await (await channelTo(ctx, name)).copyOut([`/build/out/${file}`], target, ctx.signal);
    },
    used,
    peak: () => peak,
    remove: () => removeMachine(ctx, name, paths),
    afterwards: [
      'go on: the same command with --resume',
      `look at it: zfsdev shell ${name} (after zfsdev start ${name}, if it does not run), then cd /build`,
      `get rid of it: zfsdev delete --force ${name}`,
    ],
    anew: `begin anew: zfsdev delete --force ${name}, then the same command without --resume`,
  };
}

/** The machine of a build. */
export function machineName(id: string): InstanceName {
  return parseName(`kernel-build-${id.slice(0, 6)}`);
}

/** The template, scaled down to what this host has, which is said. @throws Failure `unsupported` for too little memory */
async function specFor(
  ctx: Context,
  name: InstanceName,
  { driver, host = { cpus: availableParallelism(), freeMemory: freeMemory() } }: MachineOptions,
): Promise<Spec> {
  const chosen = driver === undefined ? { name } : { name, driver };
  const asked = await resolveSpec('kernel-build', chosen);
  const { cpus, memory, notices } = scaledTo(host, asked);
  for (const text of notices) ctx.emit({ type: 'notice', level: 'info', text });
  return resolveSpec('kernel-build', { ...chosen, cpus, memory: exactBytes(memory) });
}

/** Whether its processors are, which is said as well. */
async function isEmulated(ctx: Context, spec: Spec): Promise<boolean> {
  // There Lima runs it with vz, which is never emulated.
  if (process.platform === 'darwin' && driverName(ctx, spec) === 'lima') return false;
  const { accelerator } = await chooseAccelerator(ctx, {
    architecture: hostArchitecture(),
    choice: spec.accelerator,
  });
  if (accelerator !== 'tcg') return false;
  const instead = process.platform === 'linux' ? '; --builder chroot builds on this host itself instead' : '';
  const text = `no hardware acceleration works here: in an emulated machine a build takes 10 to 20 times as long${instead}`;
  ctx.emit({ type: 'notice', level: 'warning', text });
  return true;
}

async function layOut(
  ctx: Context,
  name: InstanceName,
  paths: BuildPaths,
  spec: Spec,
  request: KernelRequest,
  { jobsAsked }: MachineOptions,
): Promise<void> {
  await makePrivateFolder(paths.work);
  const given = jobsAsked ? request : { ...request, jobs: spec.cpus };
  await layOutWork(ctx, paths.work, given, { inMachine: true, needed: neededSpace(request) });
  const channel = await channelTo(ctx, name);
  await channel.copyIn([`${paths.work}/.`], '/build', ctx.signal);
  await rm(paths.work, { recursive: true });
}

/** Looks at the disk every few seconds while `work` goes on: its peak is what the host has to have. */
async function watched<T>(look: () => Promise<number>, work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => void look().catch(() => undefined), 3_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await look().catch(() => undefined);
  }
}

async function run(
  ctx: Context,
  name: InstanceName,
  paths: BuildPaths,
  phase: Phase,
  jobs: number | undefined,
  { onLine, deadline, signal }: PhaseOptions,
): Promise<number> {
  const late = AbortSignal.timeout(Math.min(longestTimer, Math.max(1, Math.floor(deadline))));
  const guest = watchGuest(async (until) =>
    (await channelTo(ctx, name)).exec(['true'], { deadline: answerDeadline, signal: until }),
  );
  const unwritten = new AbortController();
  const lines = lineReader((line) => {
    guest.heard();
    try {
      appendLog(paths.log, line);
    } catch (error) {
      // Nobody above waits for a line; the first that can't be kept ends the phase.
      unwritten.abort(error);
    }
    onLine(line);
  });
  try {
    const channel = await channelTo(ctx, name, {
      stdin: Readable.from([]),
      stdout: lines.input,
      stderr: lines.input,
    });
    const any = AbortSignal.any([signal, late, guest.lost, unwritten.signal]);
    return await channel.attach([...asOne, phase, ...wordsFor(jobs)], { tty: false, signal: any });
  } catch (error) {
    if (signal.aborted) throw error;
    if (unwritten.signal.aborted) throw unwritten.signal.reason;
    if (guest.lost.aborted) throw lostGuest(name, error);
    if (!late.aborted) throw error;
    throw outOfTime(phase, error);
  } finally {
    guest.stop();
    await lines.end();
  }
}

function lostGuest(name: InstanceName, cause: unknown): Failure {
  return new Failure('guest', `the machine ${name} has given no sign of life for half an hour`, {
    detail: "it has lost its network, it hangs, or it stands still because this host's disk is full",
    hint: `zfsdev inspect ${name} tells its state; zfsdev resume ${name} has it go on after room was made, zfsdev restart --force ${name} starts it anew`,
    cause,
  });
}

function lineReader(take: (line: string) => void): { input: PassThrough; end: () => Promise<void> } {
  const input = new PassThrough();
  const reader = createInterface({ input, crlfDelay: Infinity });
  reader.on('line', take);
  const closed = once(reader, 'close');
  return {
    input,
    end: async () => {
      input.end();
      await closed;
    },
  };
}

async function removeMachine(ctx: Context, name: InstanceName, paths: BuildPaths): Promise<void> {
  if (await inspect(ctx, name)) await remove(ctx, name, { force: true });
  await rm(paths.folder, { recursive: true, force: true });
}
