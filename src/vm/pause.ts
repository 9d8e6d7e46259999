import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { formatBytes, MiB } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { filesystemOf } from '../host/free-space.ts';
import { connectQmp, type Qmp } from '../qemu/qmp.ts';
import type { Inspection } from './instance.ts';

/** Why a machine whose process runs stands still. */
export type Pause = 'host-full' | 'disk-error' | 'paused';

export const pauseWords: Readonly<Record<Pause, string>> = {
  'host-full': "the host's disk was full when it wrote to its own; nothing is lost",
  'disk-error': 'the host could not read or write its disk; nothing is lost',
  paused: 'it was paused',
};

const blocks = v.array(v.object({ 'io-status': v.optional(v.string()) }));

/** A look is worth no more than this; somebody who saves the machine keeps the monitor for longer. */
const patience = 1_000;
/** A guest that writes does so again within this time after it goes on. */
const again = 1_000;
const leastRoom = 64 * MiB;

/** Whether a running machine stands still, and why; undefined if it doesn't, or can't be asked now. */
export async function pauseOf(ctx: Context, found: Inspection): Promise<Pause | undefined> {
  if (found.status !== 'running' || found.instance.state.driver !== 'qemu') return undefined;
  return pauseOfMachine(ctx, found.name);
}

/** As `pauseOf`, for a machine of the built-in driver that may be starting. */
export async function pauseOfMachine(ctx: Context, name: InstanceName): Promise<Pause | undefined> {
  try {
    return await withQmp(ctx, name, patience, askPause);
  } catch (error) {
    if (error instanceof Failure) return undefined;
    throw error;
  }
}

async function askPause(qmp: Qmp): Promise<Pause | undefined> {
  const { status } = await qmp.execute('query-status', undefined, { deadline: patience });
  if (status === 'paused') return 'paused';
  if (status !== 'io-error') return undefined;
  const devices = v.parse(blocks, await qmp.executeAny('query-block', undefined, { deadline: patience }));
  return devices.some((device) => device['io-status'] === 'nospace') ? 'host-full' : 'disk-error';
}

/**
 * Has a machine that stands still go on; gives false if it didn't. The caller holds the instance's lock.
 * @throws Failure `no-space` where the host's disk is as full as before, `files` if its disk fails again.
 */
export async function resumeMachine(ctx: Context, name: InstanceName): Promise<boolean> {
  return withQmp(ctx, name, 30_000, async (qmp) => {
    const pause = await askPause(qmp);
    if (pause === undefined) return false;
    if (pause === 'host-full') await requireRoom(ctx, name);
    let stopped = false;
    qmp.onEvent((event) => (stopped ||= event.name === 'BLOCK_IO_ERROR'));
    await qmp.execute('cont');
    // It writes what it could not write as soon as it goes on: whether that works shows at once.
    for (let waited = 0; waited < again && !stopped; waited += 50)
      await delay(50, undefined, { signal: ctx.signal });
    if (!stopped) return true;
    const now = await askPause(qmp);
    throw new Failure(
      now === 'host-full' ? 'no-space' : 'files',
      `"${name}" stands still again: ${pauseWords[now ?? 'disk-error']}`,
      {
        hint: `zfsdev usage tells what takes the room; then again: zfsdev resume ${name}`,
      },
    );
  });
}

async function requireRoom(ctx: Context, name: InstanceName): Promise<void> {
  const { free, path } = await filesystemOf(ctx.paths.instance(name).folder);
  if (free >= leastRoom) return;
  throw new Failure('no-space', `"${name}" can't go on yet: only ${formatBytes(free)} are free at ${path}`, {
    hint: `zfsdev usage tells what takes the room; zfsdev warm prune and zfsdev image prune give unused files back\nthen: zfsdev resume ${name}`,
  });
}

async function withQmp<T>(
  ctx: Context,
  name: InstanceName,
  milliseconds: number,
  work: (qmp: Qmp) => Promise<T>,
): Promise<T> {
  const options = { deadline: deadlineIn(milliseconds), signal: ctx.signal };
  const qmp = await connectQmp(ctx.paths.instance(name).qmp, options);
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}
