import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseSnapshotName } from '../../../src/core/snapshot-name.ts';
import { createSnapshot, type CreateSnapshot } from '../../../src/storage/snapshot-create.ts';
import { deleteSnapshot } from '../../../src/storage/snapshot-delete.ts';
import { loadSnapshot, type LoadSnapshot } from '../../../src/storage/snapshot-load.ts';
import { surveySnapshots } from '../../../src/storage/snapshot-survey.ts';
import type { ExpectedCall } from '../../fakes/programs.ts';
import { call } from '../../support/call.ts';
import type { TestContext } from '../../support/context.ts';
import { disksOf, LimaHouse, machine, patience, recorded, versions, type LimaVersion } from './support.ts';

let house: LimaHouse;
afterEach(() => house.close());

const wanted: CreateSnapshot = {
  disks: [],
  live: false,
  memory: false,
  overwrite: false,
  overcommit: true,
};
const how: LoadSnapshot = {
  disks: [],
  mayRestart: () => Promise.resolve(false),
  noMemory: false,
  overcommit: true,
  deadline: () => patience,
};
const name = parseSnapshotName('s1');

/** What the disk is before and after the snapshot; no machine has to run for a table that says that memory is in it. */
async function disks(version: LimaVersion): Promise<{ disk: string; without: string; with: string }> {
  const disk = join(house.folder, disksOf[version][0] ?? '');
  const [without, having] = [join(house.root, 'without.qcow2'), join(house.root, 'with.qcow2')];
  call('qemu-img', 'create', '-q', '-f', 'qcow2', without, '16M');
  await copyFile(without, having);
  call('qemu-img', 'snapshot', '-c', name, having);
  await copyFile(without, disk);
  return { disk, without, with: having };
}

/** Has the one snapshot of a disk say that a machine's memory is in it. */
async function claimMemory(disk: string): Promise<void> {
  const bytes = await readFile(disk);
  const entry = Number(bytes.readBigUInt64BE(64));
  bytes.writeUInt32BE(4096, entry + 32);
  bytes.writeBigUInt64BE(4096n, entry + 40);
  await writeFile(disk, bytes);
}

describe.each(versions)('snapshots by limactl %s', (version) => {
  beforeEach(async () => {
    house = await LimaHouse.open(version);
  });

  const snapshot = async (
    verb: string,
    file: string,
    more: Partial<ExpectedCall> = {},
  ): Promise<ExpectedCall> =>
    house.lima(['snapshot', verb, machine, '--tag', name], undefined, {
      stderr: await recorded(version, `snapshot-${file}.txt`),
      ...more,
    });
  const lists = async (vmType = 'qemu'): Promise<ExpectedCall> =>
    house.lima(['list', '--json', machine], undefined, {
      stdout: (await recorded(version, 'list-m1.jsonl')).replace('"vmType": "qemu"', `"vmType": "${vmType}"`),
    });
  const inGuest = (words: RegExp, stdout = ''): ExpectedCall =>
    house.ssh('root', ['-T', `root@lima-${machine}`, words], { stdout });

  it('of a stopped machine are taken, found in its disk, gone back to and deleted', async () => {
    await house.stoppedMachine();
    const files = await disks(version);
    const ctx = await house.play({
      limactl: [
        await lists(),
        await snapshot('create', 'create', { leaves: { [files.disk]: { copyOf: files.with } } }),
        await snapshot('apply', 'apply'),
        await snapshot('delete', 'create', { leaves: { [files.disk]: { copyOf: files.without } } }),
      ],
    });
    const made = await createSnapshot(ctx, machine, name, { ...wanted, description: 'mine' });
    expect(made).toMatchObject({ name, memory: 0, description: 'mine' });
    expect((await surveySnapshots(ctx, machine)).snapshots).toMatchObject([{ name, description: 'mine' }]);
    expect(await loadSnapshot(ctx, machine, 's1', how)).toMatchObject({ machine: 'stopped' });
    await deleteSnapshot(ctx, machine, 's1', []);
    expect((await surveySnapshots(ctx, machine)).snapshots).toEqual([]);
  });

  it('are not believed where the disk does not have them, although limactl says nothing', async () => {
    await house.stoppedMachine();
    await disks(version);
    const ctx = await house.play({ limactl: [await lists(), await snapshot('create', 'create')] });
    await expect(createSnapshot(ctx, machine, name, wanted)).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringContaining('"m1" does not have it') as string,
    });
  });

  it('are not believed to be deleted while the disk has them', async () => {
    await house.stoppedMachine();
    const files = await disks(version);
    await copyFile(files.with, files.disk);
    const ctx = await house.play({ limactl: [await snapshot('delete', 'create')] });
    await expect(deleteSnapshot(ctx, machine, 's1', [])).rejects.toMatchObject({ reason: 'process' });
  });

  it('of a running machine take its memory along, or are refused', async () => {
    await house.runningMachine();
    await disks(version);
    const ctx = await house.ctx;
    await expect(createSnapshot(ctx, machine, name, { ...wanted, live: true })).rejects.toMatchObject({
      reason: 'unsupported',
      hint: expect.stringContaining('add --memory') as string,
    });
  });

  it('fail in the words that QEMU told Lima, whose exit code is 0', async () => {
    await house.runningMachine();
    await disks(version);
    const ctx = await house.play({
      limactl: [await lists(), await snapshot('create', 'apply-running-fails')],
      ssh: [inGuest(/zpool sync/)],
    });
    const taken = createSnapshot(ctx, machine, name, { ...wanted, live: true, memory: true });
    await expect(taken).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringContaining("Snapshot 'nosuch' does not exist in one or more devices") as string,
    });
    expect((await surveySnapshots(ctx, machine)).snapshots).toEqual([]);
  });

  it('of the disks alone need a restart of a running machine', async () => {
    const pid = await house.runningMachine();
    const files = await disks(version);
    await copyFile(files.with, files.disk);
    const ctx: TestContext = await house.play({
      limactl: [await house.stopsByForce(), await snapshot('apply', 'apply'), await house.starts(pid)],
      ssh: [...house.asksProvisioning(), house.ssh('root', ['-O', 'exit', `root@lima-${machine}`])],
    });
    await expect(loadSnapshot(ctx, machine, 's1', how)).rejects.toMatchObject({
      reason: 'wrong-state',
      hint: expect.stringContaining('--restart') as string,
    });
    const loaded = await loadSnapshot(ctx, machine, 's1', {
      ...how,
      mayRestart: () => Promise.resolve(true),
    });
    expect(loaded).toMatchObject({ machine: 'restarted' });
    const order = (await house.limactlCalls()).map((call) => call.split(' ')[0]);
    expect(order).toEqual(['stop', 'snapshot', 'start']);
  });

  it('with memory are loaded while it runs, over no connection that the guest of then does not know', async () => {
    await house.runningMachine();
    const files = await disks(version);
    await claimMemory(files.with);
    await copyFile(files.with, files.disk);
    const ctx = await house.play({
      limactl: [await lists(), await snapshot('apply', 'apply')],
      ssh: [
        house.ssh('root', ['-O', 'exit', `root@lima-${machine}`]),
        inGuest(/date/),
        inGuest(/zpool list/, 'ONLINE\n'),
      ],
    });
    expect(await loadSnapshot(ctx, machine, 's1', how)).toMatchObject({ machine: 'resumed' });
    const calls = await house.calls();
    expect(calls.findIndex((words) => words.includes('-O exit'))).toBeLessThan(
      calls.findIndex((words) => words.includes('snapshot apply')),
    );
  });

  it('are refused for a machine that Lima runs with vz, in words that name what can', async () => {
    await house.stoppedMachine();
    await disks(version);
    const ctx = await house.play({ limactl: [await lists('vz')] });
    await expect(createSnapshot(ctx, machine, name, wanted)).rejects.toMatchObject({
      reason: 'unsupported',
      hint: expect.stringContaining('--driver qemu') as string,
    });
  });

  it('are refused for a raw disk, and for names that QEMU would take apart', async () => {
    await house.stoppedMachine();
    const ctx = await house.ctx;
    await expect(createSnapshot(ctx, machine, name, wanted)).rejects.toMatchObject({ reason: 'unsupported' });
    await disks(version);
    const odd = parseSnapshotName('a b');
    await expect(createSnapshot(ctx, machine, odd, wanted)).rejects.toMatchObject({ reason: 'unsupported' });
  });
});
