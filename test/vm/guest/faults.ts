// Runs inside a machine: what goes wrong around zvold, on real pools. A line for each part; exit code 0 if all is well.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { clientOver } from '../../../src/zvol/client.ts';
import type { ZvoldClient } from '../../../src/zvol/api.ts';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import { createSnapshot, rollback } from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume } from '../../../src/zvold/volumes.ts';
import { faultedPool, fullPool, suspendedPool } from './pool-faults.ts';
import { folder, keeperOf, MiB, must, names, refusal, run, runParts, scratchPool } from './scratch-pool.ts';
import { slowWatcher } from './slow-watcher.ts';

const socket = '/run/zfsdev/zvold.sock';

/** The daemon that systemd started, or starts for this. */
function zvold(path = socket): ZvoldClient {
  const proxy = {
    path,
    problem: () => undefined,
    close: () => Promise.resolve(),
  };
  return clientOver(proxy, 'this machine', new AbortController().signal);
}

/** Sixty-four at once, each through a connection of its own. */
async function manyClients(): Promise<void> {
  const first = zvold();
  for (let at = 0; at < 4; at += 1) await first.createVolume({ name: `many${at}`, sizeBytes: MiB });
  // Clients of one address share a connection; a link of its own makes each of them another address.
  const links = mkdtempSync('/tmp/many-');
  const clients = Array.from({ length: 64 }, (_, at) => {
    symlinkSync(socket, `${links}/${at}`);
    return zvold(`${links}/${at}`);
  });
  await Promise.all(clients.map((client, at) => client.createSnapshot(`many${at % 4}`, `s${at}`)));
  const volumes = (await first.volumes()).filter(({ name }) => name.startsWith('many'));
  for (const { name, snapshots } of volumes)
    must(snapshots.length === 16, `${name} has 16 snapshots, and it has ${snapshots.length}`);
  await Promise.all(volumes.map(({ name }, at) => (clients[at] ?? first).deleteVolume(name)));
  must(!(await first.volumes()).some(({ name }) => name.startsWith('many')), 'they are gone');
  for (const client of [first, ...clients]) await client.close();
  rmSync(links, { recursive: true });
}

/** In the middle of an import, which its journal has. */
async function killedDaemon(): Promise<void> {
  const client = zvold();
  const file = '/root/faults.raw';
  writeFileSync(file, randomBytes(64 * MiB));
  const { id } = await client.startImport({ name: 'cut', target: 'IMPORT_TARGET_TEMPLATE' }, file);
  const stop = new AbortController();
  for await (const { import: job } of client.watch(stop.signal))
    if (job?.id === id && job.state === 'IMPORT_STATE_WRITING') break;
  stop.abort();
  run('systemctl', 'kill', '--signal=KILL', 'zfsdev-zvold.service');
  await client.close();
  const next = zvold();
  // Its socket is systemd's, so that a client only waits for the next one; which tidies up at its start.
  for (let end = performance.now() + 300_000; ;) {
    const known = await next.import(id).catch(() => undefined);
    const left = run('zfs', 'list', '-H', '-o', 'name', '-t', 'volume', '-r', 'testpool');
    if (known?.state === 'IMPORT_STATE_FAILED' && left === '') {
      must(known.error.includes('ended in the middle'), `it says why: ${known.error}`);
      break;
    }
    if (performance.now() > end) throw new Error(`${known?.state ?? 'no answer'}, and there is ${left}`);
  }
  must((await next.templates()).length === 0, 'there is no template of it');
  await next.createVolume({ name: 'after', sizeBytes: MiB });
  await next.deleteVolume('after');
  await next.close();
  rmSync(file);
}

/** A process that does something and stays; gives what ends it. */
async function staying(program: string, ...args: readonly string[]): Promise<() => Promise<void>> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return async () => {
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  };
}

/** A volume that a program has open is neither deleted nor taken back nor named anew. */
async function openVolume(): Promise<void> {
  const remove = scratchPool('open', folder, 128 * MiB);
  try {
    const keeper = keeperOf('open');
    const { path } = await createVolume(keeper, { name: 'data', size: 8 * MiB, thick: false, id: '' });
    await createSnapshot(keeper, 'data', 'kept', '');
    const close = await staying('sh', '-c', `exec 3<${path}; echo ready; exec sleep 1000`);
    for (const work of [
      () => deleteVolume(keeper, 'data'),
      () => rollback(keeper, 'data', 'kept', false),
      () => renameVolume(keeper, 'data', 'other'),
    ]) {
      const { code, message } = await refusal(work());
      must(code === 'FAILED_PRECONDITION' && message.includes('open in '), `open in a process: ${message}`);
    }
    const { code } = await refusal(createVolume(keeper, { name: 'data', size: MiB, thick: false, id: '' }));
    must(code === 'ALREADY_EXISTS', `there is one of that name: ${code}`);
    must(
      run('zfs', 'list', '-H', '-o', 'name', '-t', 'snapshot').includes('open/data@kept'),
      'its snapshot is there',
    );
    await close();
    await rollback(keeper, 'data', 'kept', false);
    await deleteVolume(keeper, 'data');
    must((await names(keeper)) === '', 'it is gone');
  } finally {
    remove();
  }
}

/** What a volume is used for, which keeps it from being deleted; nothing of it goes before that is found. */
async function usedVolumes(): Promise<void> {
  const remove = scratchPool('used', folder, 256 * MiB);
  try {
    const keeper = keeperOf('used');
    const { path } = await createVolume(keeper, { name: 'data', size: 64 * MiB, thick: false, id: '' });
    await createSnapshot(keeper, 'data', 'kept', '');
    const refused = async (words: string): Promise<void> => {
      const { code, message } = await refusal(deleteVolume(keeper, 'data'));
      must(code === 'FAILED_PRECONDITION' && message.includes(words), `"${words}", and it says ${message}`);
      const left = run('zfs', 'list', '-H', '-o', 'name', '-t', 'snapshot', '-r', 'used');
      must(left === 'used/data@kept', `its snapshot is there: ${left}`);
    };
    const loop = run('losetup', '--find', '--show', path);
    await refused(`used by the loop device ${loop.replace('/dev/', '')}`);
    run('losetup', '--detach', loop);
    run('mkswap', path);
    run('swapon', path);
    await refused('used as swap');
    run('swapoff', path);
    run('mkfs.ext4', '-q', '-F', path);
    // Mounted where no other process sees it.
    const script = `mount ${path} /mnt && echo ready && exec sleep 1000`;
    const unmount = await staying('unshare', '--mount', 'sh', '-c', script);
    await refused('mounted at /mnt as sleep');
    await unmount();
    await createTemplate(keeper, { name: 'base', volume: 'data', snapshot: 'kept', id: '' });
    await cloneTemplate(keeper, { template: 'base', name: 'copy', id: '' });
    await refused('"copy" was cloned from its snapshot "kept"; its snapshot "kept" is the template "base"');
    must((await names(keeper)) === 'copy data', 'both are there');
    await deleteVolume(keeper, 'copy');
  } finally {
    remove();
  }
}

const parts = {
  'sixty-four clients at once lose no update': manyClients,
  'a daemon that is killed in the middle is started again, and tidies up': killedDaemon,
  'a full pool refuses, and nothing is half-made': fullPool,
  'a suspended pool is said to be so, and is there again when it is back': suspendedPool,
  'a pool whose disk is gone is said to be so, and is there again when that is back': faultedPool,
  'a watcher that is too slow is told to begin anew, and then has all that there is': slowWatcher,
  'a volume that is used in whatever way is not deleted': usedVolumes,
  'a volume that is open is not touched': openVolume,
} as const;
process.exit(await runParts(Object.entries(parts)));
