import { existsSync } from 'node:fs';
import type { Deadline } from '../../../src/host/deadline.ts';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { channelTo, remove, resume, start, stop } from '../../../src/vm/lifecycle.ts';
import { machineFiles } from '../../../src/vm/machine-files.ts';
import { inspect, readInstance } from '../../../src/vm/store.ts';
import { disksOf, LimaHouse, machine, patience, versions } from './support.ts';

let house: LimaHouse;
afterEach(() => house.close());

const noOptions = { deadline: () => patience, overcommit: true };
const signal = new AbortController().signal;

describe.each(versions)('limactl %s', (version) => {
  beforeEach(async () => {
    house = await LimaHouse.open(version);
  });

  it('makes a machine in a home of its own, and starts it', async () => {
    const pid = house.process('ha.pid');
    const limactl = [
      await house.asksVersion(),
      await house.creates(),
      await house.starts(pid, 'start.jsonl'),
    ];
    const ctx = await house.play({ limactl, ssh: house.asksProvisioning() });
    expect(await house.up(ctx)).toMatchObject({ outcome: 'created' });
    expect(await house.limactlCalls()).toEqual([
      '--version',
      `create --name=m1 ${ctx.paths.instance(machine).lima}`,
      'start --timeout=600s m1',
    ]);
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'running', pid });
    const { state } = readInstance(ctx, machine);
    expect(state).toMatchObject({ driver: 'lima', phase: 'started', limaHome: ctx.paths.lima });
    const yaml = await readFile(join(house.folder, 'lima.yaml'), 'utf8');
    expect(yaml).toContain(`# zfsdev machine ${state.machineId}\n`);
    expect(await house.up(ctx)).toMatchObject({ outcome: 'already-running' });
  });

  it('has all of its time from its start on, however long it took to be made', async () => {
    const limactl = [
      await house.asksVersion(),
      await house.creates(),
      await house.starts(house.process('ha.pid'), 'start.jsonl'),
    ];
    const ctx = await house.play({ limactl, ssh: house.asksProvisioning() });
    let madeBefore: boolean | undefined;
    const deadline = (): Deadline => {
      madeBefore = existsSync(join(house.folder, 'lima.yaml'));
      return patience;
    };
    await house.up(ctx, deadline);
    expect(madeBefore).toBe(true);
  });

  it('tells of each step what Lima tells', async () => {
    const limactl = [
      await house.asksVersion(),
      await house.creates(),
      await house.starts(house.process('ha.pid'), 'start.jsonl'),
    ];
    const ctx = await house.play({ limactl, ssh: house.asksProvisioning() });
    await house.up(ctx);
    const told = ctx.events.flatMap((event) => (event.type === 'step-progress' ? [event.text] : []));
    expect(told).toContain('Attempting to download the image');
    expect(told.some((text) => text.startsWith('Starting QEMU'))).toBe(true);
    expect(told.filter((text) => text.startsWith('[hostagent]') || text.startsWith('{'))).toEqual([]);
  });

  it('knows the disks of its layout, the one with the root first', async () => {
    await house.stoppedMachine();
    const ctx = await house.ctx;
    const { disks } = await machineFiles(ctx, machine, readInstance(ctx, machine));
    expect(disks).toEqual(disksOf[version].map((disk) => join(house.folder, disk)));
  });

  it('stops it, and starts it again', async () => {
    const pid = await house.runningMachine();
    const ssh = [house.ssh('root', ['-O', 'exit', 'root@lima-m1'])];
    const stopping = await house.play({ limactl: [await house.stops()], ssh });
    expect(await stop(stopping, machine, { force: false, deadline: patience })).toBe(true);
    expect(await inspect(stopping, machine)).toMatchObject({ status: 'stopped' });
    expect(await stop(stopping, machine, { force: false, deadline: patience })).toBe(false);
    const starting = await house.play({
      limactl: [await house.starts(pid, 'start.jsonl')],
      ssh: house.asksProvisioning(),
    });
    expect(await start(starting, machine, noOptions)).toMatchObject({ outcome: 'started' });
    expect(await inspect(starting, machine)).toMatchObject({ status: 'running' });
  });

  it('cuts its power', async () => {
    await house.runningMachine();
    const ssh = [house.ssh('root', ['-O', 'exit', 'root@lima-m1'])];
    const ctx = await house.play({ limactl: [await house.stopsByForce()], ssh });
    expect(await stop(ctx, machine, { force: true, deadline: patience })).toBe(true);
    expect(await house.limactlCalls()).toEqual(['stop --force m1']);
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'stopped' });
  });

  it('deletes it, running or not, and leaves nothing', async () => {
    await house.runningMachine();
    const ctx = await house.play({ limactl: [await house.deletes()] });
    await expect(remove(ctx, machine, { force: false })).rejects.toMatchObject({ reason: 'wrong-state' });
    expect(await house.limactlCalls()).toEqual([]);
    await remove(ctx, machine, { force: true });
    expect(await readdir(ctx.paths.lima)).toEqual([]);
    expect(await readdir(ctx.paths.instances)).toEqual([]);
  });

  it('leaves alone what was protected with Lima, and says how to lift that', async () => {
    await house.stoppedMachine();
    await writeFile(join(house.folder, 'protected'), '');
    const ctx = await house.ctx;
    await expect(remove(ctx, machine, { force: true })).rejects.toMatchObject({
      reason: 'protected',
      message: '"m1" is protected in Lima',
      hint: `LIMA_HOME='${ctx.paths.lima}' limactl unprotect m1`,
    });
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'stopped' });
  });

  it('keeps its own record of a machine that Lima refuses to delete', async () => {
    await house.stoppedMachine();
    const argv = ['delete', '--force', machine];
    const ctx = await house.play({
      limactl: [await house.lima(argv, 'delete-protected.jsonl', { exitCode: 1 })],
    });
    await expect(remove(ctx, machine, { force: true })).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringMatching(/^limactl delete failed: .* is protected/) as string,
    });
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'stopped' });
  });
});

it.each([
  ['1.0.7', '1.0.0', false],
  ['1.1.0', '1.1.0', true],
])(
  'writes for limactl %s what it understands, and asks once which one it is',
  async (version, least, data) => {
    house = await LimaHouse.open();
    const limactl = [
      await house.lima(['--version'], undefined, { stdout: `limactl version ${version}\n`, times: 1 }),
      await house.creates(),
      await house.starts(house.process('ha.pid'), 'start.jsonl'),
    ];
    await house.up(await house.play({ limactl, ssh: house.asksProvisioning() }));
    const yaml = await readFile(join(house.folder, 'lima.yaml'), 'utf8');
    expect(yaml).toContain(`minimumLimaVersion: ${least}\n`);
    expect(yaml.includes('mode: data')).toBe(data);
  },
);

it('what Lima can not do is refused with the driver that can', async () => {
  house = await LimaHouse.open();
  await house.runningMachine();
  await expect(resume(await house.ctx, machine)).rejects.toMatchObject({
    reason: 'unsupported',
    message: '"m1" is run by Lima, which has none go on; the driver qemu can',
    hint: 'zfsdev restart --force m1 starts it anew',
  });
});

describe('the way into a machine', () => {
  beforeEach(async () => {
    house = await LimaHouse.open();
    await house.runningMachine();
  });

  it("runs commands as root by Lima's ssh configuration, each exit code an answer", async () => {
    const says = house.ssh('root', ['-T', 'root@lima-m1', "exec sh -c 'exit 7' 'it'\\''s'"], {
      exitCode: 7,
      stdout: 'out',
      stderr: 'err',
    });
    const channel = await channelTo(await house.play({ ssh: [says] }), machine);
    const argv = ['sh', '-c', 'exit 7', "it's"];
    expect(await channel.exec(argv, { deadline: 10_000, signal })).toEqual({
      exitCode: 7,
      stdout: 'out',
      stderr: 'err',
    });
  });

  it('tells 255 of a command from a connection that is not there', async () => {
    const failing = house.ssh('root', ['-T', 'root@lima-m1', 'exec false'], {
      exitCode: 255,
      stderr: 'no route',
    });
    const check = (exitCode: number, times: number) =>
      house.ssh('root', ['-O', 'check', 'root@lima-m1'], { exitCode, times });
    const ctx = await house.play({ ssh: [failing, check(0, 1), check(255, 1)] });
    const channel = await channelTo(ctx, machine);
    const options = { deadline: 10_000, signal };
    expect(await channel.exec(['false'], options)).toMatchObject({ exitCode: 255 });
    await expect(channel.exec(['false'], options)).rejects.toMatchObject({
      reason: 'guest',
      detail: 'no route',
    });
  });

  it('copies by scp, into it and out of it', async () => {
    const scp = (...words: string[]) => ({
      argv: [...house.sshOptions('root'), '-q', '-r', '-p', '--', ...words],
    });
    const ctx = await house.play({
      scp: [scp('/a', './b:c', 'root@lima-m1:/root/'), scp('root@lima-m1:/etc/hosts', './here')],
    });
    const channel = await channelTo(ctx, machine);
    await channel.copyIn(['/a', 'b:c'], '/root/', signal);
    await channel.copyOut(['/etc/hosts'], 'here', signal);
  });
});
