import { spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { parseSnapshotName } from '../../../src/core/snapshot-name.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import { createSnapshot } from '../../../src/storage/snapshot-create.ts';
import { loadSnapshot } from '../../../src/storage/snapshot-load.ts';
import { surveySnapshots, type SizedSnapshot } from '../../../src/storage/snapshot-survey.ts';
import { start } from '../../../src/vm/lifecycle.ts';
import { readInstance, writeSpec } from '../../../src/vm/store.ts';
import { snapshotQemu, type SnapshotQemu } from '../../fakes/qemu-snapshots.ts';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { processOf } from '../../support/running.ts';
import { shell, type Shell } from '../../support/zfsdev.ts';
import { putHarmlessPerl, startTestAgent, type TestAgent } from '../agent/support.ts';

export const name = parseName('cut');
/** Whose power is cut: QEMU's, zfsdev's, or the host's. */
export type Victim = 'qemu' | 'zfsdev' | 'both';

let agent: TestAgent;
let programs: TestContext;
export let ctx: TestContext;
export let zfsdev: Shell;
export let qemu: SnapshotQemu;
export let running: boolean;
let end: () => Promise<void>;
export let disks: readonly { readonly name: string; readonly node: string; readonly path: string }[];

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

export async function cutPower(): Promise<void> {
  if (!running) return;
  running = false;
  await end();
  await qemu.die();
}

export function write(pattern: number): void {
  for (const { path } of disks) callIn(dirname(path), 'qemu-io', '-c', `write -P ${pattern} 0 1M`, path);
}

/** The names of the disks that hold a pattern: all or none, unless they are of two moments. */
export function holding(pattern: number): string[] {
  return disks.filter(({ path }) => holds(path, pattern)).map((disk) => disk.name);
}

function holds(path: string, pattern: number): boolean {
  const args = ['-r', '-c', `read -P ${pattern} 0 1M`, path];
  const { stdout } = spawnSync('qemu-io', args, { encoding: 'utf8' });
  expect(stdout).toContain('read 1048576/1048576 bytes');
  return !stdout.includes('failed');
}

export const both = ['root', 'data'];

export function take(snapshot: string, memory = false): Promise<unknown> {
  return createSnapshot(ctx, name, parseSnapshotName(snapshot), {
    disks: [],
    live: running,
    memory: memory && running,
    overwrite: false,
    overcommit: false,
    description: `about ${snapshot}`,
  });
}

export function load(snapshot: string): Promise<unknown> {
  return loadSnapshot(ctx, name, snapshot, {
    disks: [],
    noMemory: true,
    overcommit: false,
    mayRestart: () => Promise.resolve(true),
    deadline: () => deadlineIn(60_000),
  });
}

export async function listed(): Promise<SizedSnapshot[]> {
  return (await surveySnapshots(ctx, name)).snapshots;
}

export const find = async (snapshot: string): Promise<SizedSnapshot | undefined> =>
  (await listed()).find((each) => each.name === snapshot);

export const partsOf = (snapshot: SizedSnapshot | undefined): string[] =>
  (snapshot?.parts ?? []).map(({ disk }) => disk);

/** Runs a real zfsdev until QEMU has come to a step, and cuts the power there. */
export async function cutAt(step: string, victim: Victim, ...args: readonly string[]): Promise<void> {
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

export function expectSound(): void {
  for (const { path } of disks) expect(callIn(ctx.folder, 'qemu-img', 'check', path)).toContain('No errors');
}

/** What is listed is there on all of its disks, and what is not on all of them says so. */
export async function expectTruth(): Promise<void> {
  for (const snapshot of await listed())
    expect([...partsOf(snapshot), ...snapshot.lost].sort()).toEqual([...both].sort());
}

/** The machine goes on, or is started again; both ways the next snapshot is a whole one. */
export async function expectNext(): Promise<void> {
  await take('next');
  expect(await find('next')).toMatchObject({ lost: [], description: 'about next' });
  expect(partsOf(await find('next'))).toEqual(both);
  expect(await find('first')).toMatchObject({ lost: [] });
}

/** It settles what was begun, and then has no room for more. */
export async function expectRefusedStart(): Promise<void> {
  const poor = { ...ctx, env: { ...ctx.env, ZFSDEV_RESERVE: '100TiB' } };
  const options = { deadline: () => deadlineIn(60_000), overcommit: false };
  await expect(start(poor, name, options)).rejects.toMatchObject({ reason: 'no-space' });
}

export const victims: readonly Victim[] = ['qemu', 'zfsdev', 'both'];
export const atSteps = (steps: readonly string[]): [string, Victim][] =>
  steps.flatMap((step) => victims.map((victim): [string, Victim] => [step, victim]));

/** Runs a real zfsdev that is killed once its qemu-img, which is a real one too, has changed so many disks. */
export async function killAfter(changes: number, ...args: readonly string[]): Promise<void> {
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
