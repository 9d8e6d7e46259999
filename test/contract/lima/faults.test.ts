import { existsSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { start, stop } from '../../../src/vm/lifecycle.ts';
import { inspect } from '../../../src/vm/store.ts';
import type { TestContext } from '../../support/context.ts';
import { LimaHouse, machine, patience, recorded, versions } from './support.ts';

let house: LimaHouse;
afterEach(() => house.close());

const noOptions = { deadline: () => patience, overcommit: true };

async function expectNothingMade(ctx: TestContext): Promise<void> {
  expect(await readdir(ctx.paths.lima).catch(() => [])).toEqual([]);
  expect(await readdir(ctx.paths.instances).catch(() => [])).toEqual([]);
}

describe.each(versions)('limactl %s', (version) => {
  beforeEach(async () => {
    house = await LimaHouse.open(version);
  });

  it('refuses root, and zfsdev says what to do instead', async () => {
    const stderr = await recorded(version, 'as-root.txt');
    const ctx = await house.play({
      limactl: [await house.lima(['--version'], undefined, { stderr, exitCode: 2 })],
    });
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'unsupported',
      message: 'Lima does not run as root',
      hint: 'run zfsdev as an ordinary user, or with --driver qemu',
    });
    await expectNothingMade(ctx);
  });

  it.each([
    [
      'can not get an image',
      'create-no-image.jsonl',
      /^limactl create failed: failed to download .*no such file/,
    ],
    [
      'has a download cut off',
      'create-cut-off.jsonl',
      /^limactl create failed: failed to download .*unexpected EOF$/,
    ],
  ])('%s, and leaves a folder, which goes with the rest', async (_, file, message) => {
    const limactl = [
      await house.asksVersion(),
      await house.creates(file, { exitCode: 1 }),
      await house.deletes(),
    ];
    const ctx = await house.play({ limactl });
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringMatching(message) as string,
      hint: expect.stringMatching(/^is there a network\?/) as string,
    });
    expect((await house.limactlCalls()).at(-1)).toBe('delete --force m1');
    await expectNothingMade(ctx);
  });

  it('times out, and the machine that it leaves running is ended', async () => {
    const pid = house.process('ha.pid');
    const late = join(house.folder, 'late');
    const limactl = [
      await house.asksVersion(),
      await house.creates(),
      await house.starts(pid, 'start-late.jsonl', {
        exitCode: 1,
        leaves: {
          [late]: '',
          [join(house.folder, 'ha.pid')]: `${pid}`,
          [join(house.folder, 'serial.log')]: 'GRUB\n',
        },
      }),
      await house.stopsByForce(),
      await house.deletes(),
    ];
    const ctx = await house.play({ limactl, ssh: house.asksProvisioning() });
    const deadline = { total: 600_000, left: () => (existsSync(late) ? 0 : 600_000) };
    const failure = await house.up(ctx, () => deadline).catch((error: unknown) => error);
    expect(failure).toMatchObject({
      reason: 'deadline',
      exitCode: 124,
      message: '"m1" was not ready within 600 s',
      hint: '--timeout gives it longer',
      detail: expect.stringMatching(/essential requirement 1 of 2[^]*its console:\nGRUB$/) as string,
    });
    expect((await house.limactlCalls()).slice(-2)).toEqual(['stop --force m1', 'delete --force m1']);
    await expectNothingMade(ctx);
  });

  it('starts a QEMU that dies: its last words, and where there are more', async () => {
    await house.stoppedMachine();
    const dies = await house.starts(0, 'start-fatal.jsonl', { exitCode: 1, leaves: {} });
    const ctx = await house.play({
      limactl: [dies, await house.stopsByForce()],
      ssh: house.asksProvisioning(),
    });
    await expect(start(ctx, machine, noOptions)).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringMatching(/^limactl start failed: exiting, status=.*ha\.stderr\.log/) as string,
      detail: expect.stringContaining('Driver stopped due to error') as string,
    });
    expect(await house.limactlCalls()).toEqual(['start --timeout=600s m1', 'stop --force m1']);
    expect(await inspect(ctx, machine)).toMatchObject({
      status: 'broken',
      reason: 'its start was interrupted',
    });
  });

  it('has lost its host agent: broken, what ends it, and a plain stop that can not', async () => {
    await house.stoppedMachine();
    const pid = house.process('qemu.pid');
    await writeFile(join(house.folder, 'qemu.pid'), `${pid}`);
    const ssh = [house.ssh('root', ['-O', 'exit', 'root@lima-m1'])];
    const refuses = await house.lima(['stop', machine], 'stop-broken.jsonl', { exitCode: 1 });
    const ctx = await house.play({ limactl: [refuses, await house.stopsByForce()], ssh });
    expect(await inspect(ctx, machine)).toMatchObject({
      status: 'broken',
      pid,
      reason: "Lima's host agent ended, and left its machine running; zfsdev stop --force m1 ends it",
    });
    await expect(stop(ctx, machine, { force: false, deadline: patience })).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringMatching(/^limactl stop failed: expected status/) as string,
      hint: 'zfsdev stop --force m1 ends it all the same, as a power cut would',
    });
    expect(await stop(ctx, machine, { force: true, deadline: patience })).toBe(true);
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'stopped' });
  });
});

describe('a limactl that is no help', () => {
  beforeEach(async () => {
    house = await LimaHouse.open();
  });

  it('is not there: exit code 5, and what installs it', async () => {
    const ctx = await house.ctx;
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'dependency',
      exitCode: 5,
      message: 'limactl is not installed, or not on PATH',
      hint: expect.stringMatching(/lima-vm\.io\/docs\/installation|brew install lima/) as string,
    });
    await expectNothingMade(ctx);
  });

  it.each([
    ['limactl version 0.23.2\n', 'limactl 0.23.2 is too old: 1.0.0 or later is needed'],
    ['limactl version 1.0.0-rc.1\n', 'limactl 1.0.0-rc.1 is too old: 1.0.0 or later is needed'],
    ['limactl version HEAD\n', 'limactl does not tell its version: limactl version HEAD'],
  ])('has the wrong version: %s', async (stdout, message) => {
    const ctx = await house.play({ limactl: [await house.lima(['--version'], undefined, { stdout })] });
    await expect(house.up(ctx)).rejects.toMatchObject({ reason: 'dependency', message });
    await expectNothingMade(ctx);
  });

  it('says nothing that is known: its own last words', async () => {
    const broken = await house.lima(['--version'], undefined, {
      stderr: 'Illegal instruction\n',
      exitCode: 132,
    });
    const ctx = await house.play({ limactl: [broken] });
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'process',
      message: 'limactl --version failed: limactl failed with exit code 132',
      detail: 'Illegal instruction',
    });
  });

  it('hangs when asked for its version: given up after half a minute, with nothing made', async () => {
    const hangs = await house.lima(['--version'], undefined, { hangs: true });
    const ctx = await house.play({ limactl: [hangs] });
    await expect(house.up(ctx)).rejects.toMatchObject({
      reason: 'deadline',
      exitCode: 124,
      message: expect.stringMatching(/limactl.*30 s/) as string,
    });
    await expectNothingMade(ctx);
  }, 120_000);

  it('hangs at stop: ended at the deadline', async () => {
    await house.runningMachine();
    const hangs = await house.lima(['stop', machine], undefined, { hangs: true });
    const ssh = [house.ssh('root', ['-O', 'exit', 'root@lima-m1'])];
    const ctx = await house.play({ limactl: [hangs], ssh });
    const stopping = stop(ctx, machine, { force: false, deadline: deadlineIn(1500) });
    await expect(stopping).rejects.toMatchObject({ reason: 'deadline', exitCode: 124 });
    expect(await inspect(ctx, machine)).toMatchObject({ status: 'running' });
  });

  it('hangs at create and at start: an interrupt undoes all of it', async () => {
    const pid = house.process('ha.pid');
    for (const hanging of ['create', 'start']) {
      const user = new AbortController();
      const creates = await house.creates();
      const starts = await house.starts(pid);
      const limactl = [
        await house.asksVersion(),
        hanging === 'create' ? { ...creates, hangs: true } : creates,
        { ...starts, hangs: true },
        await house.stopsByForce(),
        await house.deletes(),
      ];
      const ctx = await house.play({ limactl, ssh: house.asksProvisioning() }, { signal: user.signal });
      const made = house.up(ctx);
      await expect
        .poll(async () => (await house.limactlCalls()).some((call) => call.startsWith(hanging)), {
          timeout: 20_000,
        })
        .toBe(true);
      user.abort();
      await expect(made).rejects.toMatchObject({ reason: 'interrupted', exitCode: 130 });
      await expectNothingMade(ctx);
    }
  });
});

describe('provisioning that fails', () => {
  const words =
    '+ modprobe zfs\nmodprobe: FATAL: Module zfs not found\nWARNING: Failed to execute /mnt/lima-cidata';
  const failure = {
    reason: 'guest',
    exitCode: 1,
    message: 'the provisioning of "m1" failed',
    detail: words,
  };

  beforeEach(async () => {
    house = await LimaHouse.open();
  });

  it('while limactl waits in vain: ends the wait with the words of the script, and undoes all', async () => {
    const pid = house.process('ha.pid');
    const waits = await house.starts(pid, 'start.jsonl', { hangs: true });
    const limactl = [
      await house.asksVersion(),
      await house.creates(),
      waits,
      await house.stopsByForce(),
      await house.deletes(),
    ];
    const ctx = await house.play({ limactl, ssh: house.asksProvisioning(words) });
    await expect(house.up(ctx)).rejects.toMatchObject(failure);
    await expectNothingMade(ctx);
  });

  it('of a machine that was there: it is stopped, and keeps its disk', async () => {
    await house.stoppedMachine();
    const starts = await house.starts(house.process('ha.pid'), 'start.jsonl');
    const ctx = await house.play({
      limactl: [starts, await house.stopsByForce()],
      ssh: house.asksProvisioning(words),
    });
    await expect(start(ctx, machine, noOptions)).rejects.toMatchObject(failure);
    expect(await house.limactlCalls()).toEqual(['start --timeout=600s m1', 'stop --force m1']);
    expect(await readdir(house.folder)).toContain('disk');
  });

  it('is no less undone when ssh itself can not be run', async () => {
    const pid = house.process('ha.pid');
    const starts = await house.starts(pid, 'start-late.jsonl', { exitCode: 1 });
    await house.stoppedMachine();
    const ctx = await house.play({ limactl: [starts, await house.stopsByForce()] });
    await expect(start(ctx, machine, noOptions)).rejects.toMatchObject({ reason: 'process' });
    expect((await house.limactlCalls()).at(-1)).toBe('stop --force m1');
  });
});
