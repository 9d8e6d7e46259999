import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../core/errors.ts';
import { withUndo } from '../core/undo.ts';
import { agentChannel, askFacts } from '../guest/agent-channel.ts';
import { quote } from '../guest/quote.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn, poll } from '../host/deadline.ts';
import { makePrivateFolder, readIfExists } from '../host/files.ts';
import { connectQmp, type Qmp } from '../qemu/qmp.ts';
import { agentTarget } from './agent-target.ts';
import type { Instance } from './instance.ts';
import { killMachine, waitForEnd } from './machine-process.ts';
import type { WarmKey } from './warm-key.ts';
import { fingerprintFile, hostCpu, warmFormat, writeManifest } from './warm-store.ts';

const saveDeadline = 10 * 60_000;

/**
 * Saves a machine that is ready: its memory to a file, its disk as it stands, under `warm/<key>`; the machine ends.
 * Written beside and renamed when whole.
 */
export async function saveWarm(ctx: Context, instance: Instance, warm: WarmKey): Promise<void> {
  const building = join(ctx.paths.warm, `.building-${warm.key.slice(0, 12)}-${process.pid}`);
  const target = ctx.paths.warmState(warm.key).folder;
  await makePrivateFolder(ctx.paths.warm);
  await withUndo(async (undo) => {
    undo.add('the half-made warm state', () => rm(building, { recursive: true, force: true }));
    await mkdir(building, { mode: 0o700 });
    await settle(ctx, instance);
    await writeMemory(ctx, instance, join(building, 'memory'));
    const paths = ctx.paths.instance(instance.name);
    await rename(paths.disk, join(building, 'disk.qcow2'));
    const [memory, disk] = await Promise.all(
      ['memory', 'disk.qcow2'].map((name) => fingerprintFile(join(building, name))),
    );
    if (!memory || !disk) throw new Error('two files give two fingerprints');
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
      agentKey: ((await readIfExists(paths.agentKey)) ?? '').trim(),
      memory,
      disk,
    });
    // What is left of a damaged one with this key must not be in the way.
    await rm(target, { recursive: true, force: true });
    await rename(building, target);
  });
}

/** Brings everything to disk, drops what memory can do without, and runs the paths a fork will take at once. */
async function settle(ctx: Context, instance: Instance): Promise<void> {
  const target = agentTarget(ctx, instance);
  const patience = { deadline: deadlineIn(120_000), signal: ctx.signal };
  const channel = agentChannel(ctx, { ...target, fallback: noTerminal });
  const script = `${instance.spec.pool ? 'zpool sync && ' : ''}sync && echo 3 > /proc/sys/vm/drop_caches`;
  const { exitCode, stderr } = await channel.exec(['sh', '-c', script], {
    deadline: 120_000,
    signal: ctx.signal,
  });
  if (exitCode !== 0)
    throw new Failure('guest', 'the machine could not be brought to rest before it is saved', {
      detail: stderr,
    });
  // The second time the agent's code is compiled and its pages are there.
  for (let round = 0; round < 5; round += 1) {
    await channel.exec(['true'], { deadline: 60_000, signal: ctx.signal });
    await askFacts(target, patience);
  }
}

/** A machine about to be saved has no terminals. */
const noTerminal = {
  exec: () => Promise.reject(new Error('no ssh before a save')),
  attach: () => Promise.reject(new Error('no ssh before a save')),
  copyIn: () => Promise.reject(new Error('no ssh before a save')),
  copyOut: () => Promise.reject(new Error('no ssh before a save')),
  close: () => Promise.resolve(),
};

async function writeMemory(ctx: Context, instance: Instance, file: string): Promise<void> {
  const paths = ctx.paths.instance(instance.name);
  const deadline = deadlineIn(saveDeadline);
  const qmp = await connectQmp(paths.qmp, { deadline, signal: ctx.signal });
  try {
    await qmp.execute('stop');
    // A shell of QEMU's own, the only way that 7.2 has; the path is quoted in the one place that quotes. QEMU's umask
    // makes the file 0640, and its folder is 0700.
    await qmp.execute('migrate', { uri: `exec:cat > ${quote(file)}` });
    await poll('saving the memory', () => migrated(qmp), { deadline, signal: ctx.signal, longest: 50 });
    await qmp.execute('quit');
  } finally {
    qmp.close();
  }
  await waitForEnd(ctx, paths.pid, 60_000, ctx.signal).catch(() => killMachine(ctx, paths.pid));
}

async function migrated(qmp: Qmp): Promise<true | undefined> {
  const { status, 'error-desc': words } = await qmp.execute('query-migrate');
  if (status === 'completed') return true;
  if (status !== 'failed' && status !== 'cancelled') return undefined;
  throw new Failure('process', `QEMU could not save the memory${words ? `: ${words}` : ''}`, {
    hint: 'zfsdev list and df tell whether there is room; up --cold goes without',
  });
}
