import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import { withUndo } from '../core/undo.ts';
import { adoptFork, agentChannel, type Patience } from '../guest/agent-channel.ts';
import { newHostKey } from '../guest/keys.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn } from '../host/deadline.ts';
import { recordFile } from './file-record.ts';
import { makePrivateFolder, readIfExists } from '../host/files.ts';
import { saveDevices } from '../qemu/device-state.ts';
import { connectQmp } from '../qemu/qmp.ts';
import { agentTarget } from './agent-target.ts';
import { adoptionOf } from './identity.ts';
import type { Instance } from './instance.ts';
import { killMachine, waitForEnd } from './machine-process.ts';
import type { WarmKey } from './warm-key.ts';
import { buildingFolder, hostCpu, publishWarm, sweepWarm, warmFormat, writeManifest } from './warm-store.ts';

const saveDeadline = 10 * 60_000;
const rehearsals = 2;

/**
 * Saves a machine that is ready and whose memory lies in a file: its memory, devices and disk, under `warm/<key>`; the
 * machine ends. Written beside and renamed when whole. The caller holds the lock of this key.
 */
export async function saveWarm(ctx: Context, instance: Instance, warm: WarmKey): Promise<void> {
  const paths = ctx.paths.instance(instance.name);
  const building = buildingFolder(ctx, warm.key);
  await makePrivateFolder(ctx.paths.warm);
  await sweepWarm(ctx, warm.key);
  await withUndo(async (undo) => {
    undo.add('the half-made warm state', () => rm(building, { recursive: true, force: true }));
    await mkdir(building, { mode: 0o700 });
    await settle(ctx, instance);
    await writeDevices(ctx, instance, join(building, 'devices'));
    await rename(paths.memory, join(building, 'memory'));
    await rename(paths.disk, join(building, 'disk.qcow2'));
    const record = (name: string): ReturnType<typeof recordFile> => recordFile(ctx, join(building, name));
    const [memory, devices, disk] = await Promise.all([
      record('memory'),
      record('devices'),
      record('disk.qcow2'),
    ]);
    await writeManifest(building, {
      format: warmFormat,
      key: warm.key,
      template: instance.spec.template,
      created: new Date().toISOString(),
      imageDigest: warm.imageDigest,
      accelerator: warm.accelerator,
      qemu: warm.qemu,
      cpu: hostCpu(),
      memoryBytes: instance.spec.memory,
      diskBytes: instance.spec.disk,
      diskBound: instance.state.diskBound,
      mac: instance.state.mac,
      agentKey: (readIfExists(paths.agentKey) ?? '').trim(),
      memory,
      devices,
      disk,
    });
    await publishWarm(ctx, warm.key, building);
  });
}

/**
 * Brings everything to disk, and runs the paths a fork will take at once. The guest's page cache stays: to drop it makes
 * the file no smaller, as freed pages keep what was in them, and forks would read it all again.
 */
async function settle(ctx: Context, instance: Instance): Promise<void> {
  const target = agentTarget(ctx, instance);
  const patience = { deadline: deadlineIn(120_000), signal: ctx.signal };
  const channel = agentChannel(ctx, { ...target, fallback: noTerminal });
  const script = `${instance.spec.pool ? 'zpool sync && ' : ''}sync`;
  const { exitCode, stderr } = await channel.exec(['sh', '-c', script], {
    deadline: 120_000,
    signal: ctx.signal,
  });
  if (exitCode !== 0)
    throw new Failure('guest', 'the machine could not be brought to rest before it is saved', {
      detail: stderr,
    });
  await rehearse(ctx, instance, patience);
}

/** Has the machine adopt itself, so that a fork finds the code for it compiled and in memory. */
async function rehearse(ctx: Context, instance: Instance, patience: Patience): Promise<void> {
  const target = agentTarget(ctx, instance);
  const secrets = { hostKey: await newHostKey(ctx, instance.name), agentKey: target.secret() };
  for (let round = 0; round < rehearsals; round += 1)
    await adoptFork(target, adoptionOf(instance, secrets), patience);
}

/** A machine about to be saved has no terminals. */
const noTerminal = {
  exec: () => Promise.reject(new Error('no ssh before a save')),
  attach: () => Promise.reject(new Error('no ssh before a save')),
  copyIn: () => Promise.reject(new Error('no ssh before a save')),
  copyOut: () => Promise.reject(new Error('no ssh before a save')),
  connect: () => Promise.reject(new Error('no ssh before a save')),
  close: () => Promise.resolve(),
};

async function writeDevices(ctx: Context, instance: Instance, file: string): Promise<void> {
  const paths = ctx.paths.instance(instance.name);
  const patience = { deadline: deadlineIn(saveDeadline), signal: ctx.signal };
  const qmp = await connectQmp(paths.qmp, patience);
  try {
    await saveDevices(qmp, file, patience);
    await qmp.execute('quit');
  } finally {
    qmp.close();
  }
  await waitForEnd(ctx, paths.pid, 60_000, ctx.signal).catch(() => killMachine(ctx, paths.pid));
}
