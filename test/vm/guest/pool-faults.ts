// Pools that have no room, take nothing for a while, or lose their disk; run inside a machine.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { runCommand } from '../../../src/zvold/command.ts';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import { inventory, type Keeper } from '../../../src/zvold/keeper.ts';
import { createSnapshot } from '../../../src/zvold/snapshots.ts';
import { createVolume } from '../../../src/zvold/volumes.ts';
import { folder, keeperOf, MiB, must, names, refusal, run, scratchPool } from './scratch-pool.ts';

/** A pool without room, for volumes and for snapshots. */
export async function fullPool(): Promise<void> {
  const remove = scratchPool('full', folder, 128 * MiB);
  try {
    const keeper = keeperOf('full');
    const made = await createVolume(keeper, { name: 'thick', size: 24 * MiB, thick: true, id: '' });
    run('sh', '-c', `head -c 20M /dev/urandom >${made.path} && sync`);
    const available = Number(run('zfs', 'get', '-Hp', '-o', 'value', 'available', 'full'));
    // All but so little that what was written can't be reserved once more.
    const size = Math.floor((available * 0.9) / MiB) * MiB;
    run('zfs', 'create', '-o', 'mountpoint=none', '-o', `reservation=${size}`, 'full/filler');
    for (const work of [
      () => createVolume(keeper, { name: 'more', size: 64 * MiB, thick: true, id: '' }),
      () => createSnapshot(keeper, 'thick', 'one', ''),
    ]) {
      const { code, message } = await refusal(work());
      must(code === 'RESOURCE_EXHAUSTED', `no room: ${code} ${message}`);
    }
    must((await names(keeper)) === 'thick', 'nothing half-made');
    const left = run('zfs', 'list', '-H', '-o', 'name', '-t', 'snapshot', '-r', 'full');
    must(left === '', `no snapshot: ${left}`);
    run('zfs', 'destroy', 'full/filler');
    await createSnapshot(keeper, 'thick', 'one', '');
  } finally {
    remove();
  }
}

/** Nothing is taken for an answer of a pool that gives none. */
async function expectUnavailable(keeper: Keeper, words: string): Promise<void> {
  for (const work of [
    () => createVolume(keeper, { name: 'more', size: MiB, thick: false, id: '' }),
    () => deleteVolume(keeper, 'data'),
    () => inventory(keeper),
  ]) {
    const { code, message } = await refusal(work());
    must(code === 'UNAVAILABLE' && message.includes(words), `UNAVAILABLE ${words}: ${code} ${message}`);
  }
}

/** A pool whose disk takes nothing more, until it does: its file lies where there is no room. */
export async function suspendedPool(): Promise<void> {
  const place = '/run/faults';
  mkdirSync(place, { recursive: true });
  run('mount', '-t', 'tmpfs', '-o', 'size=96M', 'tmpfs', place);
  const file = `${place}/disk.img`;
  run('truncate', '-s', '512M', file);
  const device = run('losetup', '--find', '--show', file);
  run(
    'zpool',
    'create',
    '-o',
    'cachefile=none',
    '-o',
    'failmode=wait',
    '-O',
    'mountpoint=none',
    'away',
    device,
  );
  const keeper = keeperOf('away');
  const stop = new AbortController();
  try {
    const { path } = await createVolume(keeper, { name: 'data', size: 256 * MiB, thick: false, id: '' });
    const states = keeper.watch.changes(stop.signal);
    must((await states.next()).value === true, 'it can be asked');
    // Nobody waits for it: on a pool that is suspended it never ends.
    const writer = spawn('dd', ['if=/dev/urandom', `of=${path}`, 'bs=1M', 'count=200', 'oflag=sync'], {
      stdio: 'ignore',
    });
    must((await states.next()).value === false, 'it is seen to be suspended');
    await expectUnavailable(keeper, 'is SUSPENDED');
    run('mount', '-o', 'remount,size=600M', place);
    run('zpool', 'clear', 'away');
    must((await states.next()).value === true, 'it is seen to be back');
    const ended = writer.exitCode === null ? once(writer, 'exit') : Promise.resolve();
    writer.kill();
    await ended;
    must((await names(keeper)) === 'data', 'it has what it had');
    await createVolume(keeper, { name: 'more', size: MiB, thick: false, id: '' });
  } finally {
    stop.abort();
    // A pool that is still suspended can't be destroyed; then the machine goes with it.
    await runCommand(['zpool', 'destroy', '-f', 'away'], { deadline: 60_000 }).catch(() => undefined);
    await runCommand(['losetup', '--detach', device], { deadline: 60_000 }).catch(() => undefined);
    await runCommand(['umount', place], { deadline: 60_000 }).catch(() => undefined);
  }
}

/** A pool whose only disk has lost all that was on it, until it has that again. */
export async function faultedPool(): Promise<void> {
  const remove = scratchPool('faulted', folder, 128 * MiB);
  const file = `${folder}/faulted.img`;
  const keeper = keeperOf('faulted');
  const stop = new AbortController();
  try {
    const { path } = await createVolume(keeper, { name: 'data', size: 8 * MiB, thick: false, id: '' });
    run('sh', '-c', `head -c 8M /dev/urandom >${path} && sync && zpool sync faulted`);
    const sum = run('sha256sum', path);
    const states = keeper.watch.changes(stop.signal);
    must((await states.next()).value === true, 'it can be asked');
    run('cp', '--sparse=always', file, `${file}.kept`);
    run('truncate', '-s', '0', file);
    // It looks at its disk anew; whether it says something of that does not matter.
    await runCommand(['zpool', 'reopen', 'faulted'], { deadline: 60_000 });
    must((await states.next()).value === false, 'it is seen to be gone');
    await expectUnavailable(keeper, 'the pool faulted is UNAVAIL');
    run('mv', `${file}.kept`, file);
    run('zpool', 'clear', 'faulted');
    must((await states.next()).value === true, 'it is seen to be back');
    must((await names(keeper)) === 'data', 'it has what it had');
    must(run('sha256sum', path) === sum, 'its content is what it was');
    await createVolume(keeper, { name: 'more', size: MiB, thick: false, id: '' });
  } finally {
    stop.abort();
    remove();
  }
}
