import { spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { parseSnapshotName } from '../../../src/core/snapshot-name.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import { createSnapshot } from '../../../src/storage/snapshot-create.ts';
import { deleteSnapshot } from '../../../src/storage/snapshot-delete.ts';
import { loadSnapshot } from '../../../src/storage/snapshot-load.ts';
import { surveySnapshots, type SizedSnapshot } from '../../../src/storage/snapshot-survey.ts';
import { resume, start } from '../../../src/vm/lifecycle.ts';
import { readInstance, writeSpec } from '../../../src/vm/store.ts';
import { snapshotQemu, type SnapshotQemu } from '../../fakes/qemu-snapshots.ts';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { processOf } from '../../support/running.ts';
import { shell, type Shell } from '../../support/zfsdev.ts';
import { putHarmlessPerl, startTestAgent, type TestAgent } from '../agent/support.ts';

const name = parseName('cut');
/** Whose power is cut: QEMU's, zfsdev's, or the host's. */
type Victim = 'qemu' | 'zfsdev' | 'both';

let agent: TestAgent;
let programs: TestContext;
let ctx: TestContext;
let zfsdev: Shell;
let qemu: SnapshotQemu;
let running: boolean;
let end: () => Promise<void>;
let disks: readonly { readonly name: string; readonly node: string; readonly path: string }[];

// One guest for all machines: nothing of it is changed.
beforeAll(async () => {
  programs = await testContext();
  await putHarmlessPerl(programs.folder);
  for (const program of ['zpool', 'sync'])
    await writeFile(join(programs.folder, program), '#!/bin/sh\n', { mode: 0o755 });
  agent = await startTestAgent({ path: programs.folder, commands: programs.folder });
  const state = join(agent.root, 'proc/spl/kstat/zfs/testpool/state');
  await mkdir(dirname(state), { recursive: true });
  await writeFile(state, 'ONLINE\n');
});
afterAll(async () => {
  await agent.remove();
  await programs.remove();
});

/** A running machine with a set of two disks, that has a whole snapshot "first", with memory, of an earlier state of both. */
beforeEach(async () => {
  ctx = await testContext({ env: { ZFSDEV_RESERVE: '1B' } });
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B' });
  const paths = await stoppedInstance(ctx.paths, name, { diskBound: 64 * MiB, commandPort: agent.port });
  await writeFile(paths.agentKey, agent.secret);
  callIn(ctx.folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', paths.disk, '64M');
  disks = [
    { name: 'root', node: 'disk0', path: paths.disk },
    { name: 'data', node: 'disk-data', path: join(paths.disks, 'data.qcow2') },
  ];
  await mkdir(paths.disks);
  callIn(ctx.folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', join(paths.disks, 'data.qcow2'), '8M');
  const { spec } = readInstance(ctx, name);
  await writeSpec(ctx, { ...spec, storage: [diskFromOptions('data', { size: '8MiB' })] });
  await switchOn();
  write(1);
  await take('first', true);
  write(2);
});
afterEach(async () => {
  await cutPower();
  qemu.qemu.verify();
  await ctx.remove();
});

async function switchOn(): Promise<void> {
  const paths = ctx.paths.instance(name);
  end = await processOf(paths);
  qemu = await snapshotQemu(paths.qmp, new Map(disks.map(({ node, path }) => [node, path])));
  qemu.qemu.devices.set('device-data', { driver: 'virtio-blk-pci', drive: 'disk-data', bus: 'port1' });
  running = true;
}

async function cutPower(): Promise<void> {
  if (!running) return;
  running = false;
  await end();
  await qemu.die();
}

function write(pattern: number): void {
  for (const { path } of disks) callIn(dirname(path), 'qemu-io', '-c', `write -P ${pattern} 0 1M`, path);
}

/** The names of the disks that hold a pattern: all or none, unless they are of two moments. */
function holding(pattern: number): string[] {
  return disks.filter(({ path }) => holds(path, pattern)).map((disk) => disk.name);
}

function holds(path: string, pattern: number): boolean {
  const args = ['-r', '-c', `read -P ${pattern} 0 1M`, path];
  const { stdout } = spawnSync('qemu-io', args, { encoding: 'utf8' });
  expect(stdout).toContain('read 1048576/1048576 bytes');
  return !stdout.includes('failed');
}

const both = ['root', 'data'];

function take(snapshot: string, memory = false): Promise<unknown> {
  return createSnapshot(ctx, name, parseSnapshotName(snapshot), {
    disks: [],
    live: running,
    memory: memory && running,
    overwrite: false,
    overcommit: false,
    description: `about ${snapshot}`,
  });
}

function load(snapshot: string): Promise<unknown> {
  return loadSnapshot(ctx, name, snapshot, {
    disks: [],
    noMemory: true,
    overcommit: false,
    mayRestart: () => Promise.resolve(true),
    deadline: () => deadlineIn(60_000),
  });
}

async function listed(): Promise<SizedSnapshot[]> {
  return (await surveySnapshots(ctx, name)).snapshots;
}

const find = async (snapshot: string): Promise<SizedSnapshot | undefined> =>
  (await listed()).find((each) => each.name === snapshot);

const partsOf = (snapshot: SizedSnapshot | undefined): string[] =>
  (snapshot?.parts ?? []).map(({ disk }) => disk);

/** Runs a real zfsdev until QEMU has come to a step, and cuts the power there. */
async function cutAt(step: string, victim: Victim, ...args: readonly string[]): Promise<void> {
  const begun = zfsdev.begin('snapshot', ...args);
  let cut: Promise<void> | undefined;
  qemu.onStep = async (now) => {
    if (now === step) await (cut ??= cutNow());
  };
  const cutNow = async (): Promise<void> => {
    if (victim !== 'qemu') {
      begun.kill('SIGKILL');
      await begun.result;
    }
    if (victim !== 'zfsdev') await cutPower();
  };
  const { exitCode, stderr } = await begun.result;
  const reached = cut !== undefined;
  await cut;
  expect({ reached, stderr }).toEqual({ reached: true, stderr: expect.any(String) as string });
  expect(exitCode).toBe(victim === 'qemu' ? 1 : null);
  // A QEMU that nobody listens to any more goes on.
  if (victim === 'zfsdev')
    await expect.poll(() => qemu.steps.at(-1), { timeout: 30_000 }).toMatch(/done$|^cont$|^stop$/);
}

function expectSound(): void {
  for (const { path } of disks) expect(callIn(ctx.folder, 'qemu-img', 'check', path)).toContain('No errors');
}

/** What is listed is there on all of its disks, and what is not on all of them says so. */
async function expectTruth(): Promise<void> {
  for (const snapshot of await listed())
    expect([...partsOf(snapshot), ...snapshot.lost].sort()).toEqual([...both].sort());
}

/** The machine goes on, or is started again; both ways the next snapshot is a whole one. */
async function expectNext(): Promise<void> {
  await take('next');
  expect(await find('next')).toMatchObject({ lost: [], description: 'about next' });
  expect(partsOf(await find('next'))).toEqual(both);
  expect(await find('first')).toMatchObject({ lost: [] });
}

/** It settles what was begun, and then has no room for more. */
async function expectRefusedStart(): Promise<void> {
  const poor = { ...ctx, env: { ...ctx.env, ZFSDEV_RESERVE: '100TiB' } };
  const options = { deadline: () => deadlineIn(60_000), overcommit: false };
  await expect(start(poor, name, options)).rejects.toMatchObject({ reason: 'no-space' });
}

const victims: readonly Victim[] = ['qemu', 'zfsdev', 'both'];
const atSteps = (steps: readonly string[]): [string, Victim][] =>
  steps.flatMap((step) => victims.map((victim): [string, Victim] => [step, victim]));

describe('a set that is being taken live', () => {
  it.each([
    ...atSteps(['transaction', 'transaction disk0', 'transaction disk-data', 'transaction done']),
    ...atSteps(['snapshot-save disk0', 'snapshot-save done']),
  ])('after "%s", with the power of %s cut, is whole or nothing', async (step, victim) => {
    const memory = step.startsWith('snapshot-save') ? ['--memory'] : ['--live'];
    await cutAt(step, victim, 'create', name, 'odd', ...memory, '--description', 'why');
    await expectTruth();
    if (victim === 'qemu') expect(await find('odd')).toBeUndefined();
    await expectNext();
    const odd = await find('odd');
    if (odd) {
      expect(odd).toMatchObject({ lost: [], description: 'why' });
      expect(partsOf(odd)).toEqual(both);
    }
    // Whole wherever QEMU came to its end, unless there was somebody to undo it.
    const throughWith = ['transaction disk-data', 'transaction done', 'snapshot-save done'];
    const isKept = victim === 'zfsdev' || (victim === 'both' && throughWith.includes(step));
    expect(odd !== undefined).toBe(isKept);
    await cutPower();
    expect(holding(2)).toEqual(both);
    await load('first');
    expect(holding(1)).toEqual(both);
    await load(odd ? 'odd' : 'next');
    expect(holding(2)).toEqual(both);
    expectSound();
  });
});

describe('a set that is being deleted live', () => {
  it.each(atSteps(['snapshot-delete', 'snapshot-delete disk0', 'snapshot-delete done']))(
    'after "%s", with the power of %s cut, is told as what is left, and deleted by the same command',
    async (step, victim) => {
      await take('odd');
      qemu.steps.length = 0;
      await cutAt(step, victim, 'delete', name, 'odd');
      await expectTruth();
      const left = await find('odd');
      if (left) {
        if (left.lost.length > 0) await expect(load('odd')).rejects.toThrow('no longer whole');
        await deleteSnapshot(ctx, name, 'odd', []);
      }
      expect(await find('odd')).toBeUndefined();
      await expectNext();
      await cutPower();
      expect(holding(2)).toEqual(both);
      expectSound();
    },
  );
});

describe('a set that is being loaded with its memory', () => {
  it.each(
    atSteps([
      'stop',
      'transaction disk0',
      'transaction done',
      'snapshot-load',
      'snapshot-load disk0',
      'snapshot-load disk-data',
      'snapshot-delete disk0',
      'snapshot-delete done',
    ]),
  )('after "%s", with the power of %s cut, leaves all disks at one moment', async (step, victim) => {
    qemu.steps.length = 0;
    await cutAt(step, victim, 'load', name, 'first');
    await expectTruth();
    if (running) await resume(ctx, name);
    else await expectRefusedStart();
    const now = holding(2).length > 0 ? 2 : 1;
    expect(holding(now)).toEqual(both);
    expect((await listed()).map((each) => each.name)).toEqual(['first']);
    await expectNext();
    await cutPower();
    await load('first');
    expect(holding(1)).toEqual(both);
    expectSound();
  });

  it('and fails after zfsdev was killed does not run on with half of it, and boots as it was', async () => {
    qemu.jobFails = 'Error -22 while loading VM state';
    await cutAt('snapshot-load', 'zfsdev', 'load', name, 'first');
    const refused = {
      reason: 'wrong-state',
      hint: expect.stringContaining('zfsdev stop --force cut') as string,
    };
    await expect(resume(ctx, name)).rejects.toMatchObject(refused);
    await expect(take('next')).rejects.toMatchObject(refused);
    await cutPower();
    await take('next');
    expect(holding(2)).toEqual(both);
    expect((await listed()).map((each) => each.name)).toEqual(['first', 'next']);
  });

  it('has the time to be ready only once its memory is back', async () => {
    const asked: string[] = [];
    await loadSnapshot(ctx, name, 'first', {
      disks: [],
      noMemory: false,
      overcommit: false,
      mayRestart: () => Promise.resolve(false),
      deadline: () => {
        asked.push(qemu.steps.at(-1) ?? '');
        return deadlineIn(60_000);
      },
    });
    expect(asked).toEqual(['cont']);
    expect(holding(1)).toEqual(both);
  });
});

describe('a set of a stopped machine', () => {
  beforeEach(() => cutPower());

  /** Runs a real zfsdev that is killed once its qemu-img, which is a real one too, has changed so many disks. */
  async function killAfter(changes: number, ...args: readonly string[]): Promise<void> {
    const folder = join(ctx.folder, 'bin');
    await mkdir(folder, { recursive: true });
    const real = callIn(ctx.folder, 'sh', '-c', 'command -v qemu-img').trim();
    const script = `#!/bin/sh
${real} "$@" || exit
[ "$1" != snapshot ] || echo >>"$0.changes"
[ "$(cat "$0.changes" 2>/dev/null | wc -l)" -lt ${changes} ] || kill -9 "$PPID"
`;
    await writeFile(join(folder, 'qemu-img'), script, { mode: 0o755 });
    const killed = zfsdev.with({ PATH: `${folder}:${process.env['PATH'] ?? ''}` });
    expect((await killed('snapshot', ...args)).exitCode).toBeNull();
    await expectTruth();
  }

  it.each([1, 2])(
    'that is being taken and is cut off after %d disks is whole or nothing',
    async (changes) => {
      await killAfter(changes, 'create', name, 'odd', '--description', 'why');
      await expectNext();
      const odd = await find('odd');
      expect(odd?.description).toBe(changes === 1 ? undefined : 'why');
      expect(partsOf(odd)).toEqual(changes === 1 ? [] : both);
      expect(holding(2)).toEqual(both);
      expectSound();
    },
  );

  it.each([1, 2, 3, 4, 5, 6])(
    'that is being loaded and is cut off after %d changes is at one moment once it starts',
    async (changes) => {
      await killAfter(changes, 'load', name, 'first', '--no-memory');
      await expectRefusedStart();
      expect((await listed()).map((each) => each.name)).toEqual(['first']);
      // Both are as they were until both are back, and what that took is being cleared away.
      expect(holding(changes < 5 ? 2 : 1)).toEqual(both);
      await expectNext();
      await load('first');
      expect(holding(1)).toEqual(both);
      expectSound();
    },
  );

  it('that is being deleted and is cut off after the first disk tells that, and is deleted by the same command', async () => {
    await killAfter(1, 'delete', name, 'first');
    expect(await find('first')).toMatchObject({ lost: ['root'] });
    await expect(load('first')).rejects.toThrow('no longer whole');
    await deleteSnapshot(ctx, name, 'first', []);
    await take('next');
    expect((await listed()).map((each) => each.name)).toEqual(['next']);
    expect(holding(2)).toEqual(both);
    expectSound();
  });
});
