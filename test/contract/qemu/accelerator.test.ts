import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { chooseAccelerator, type AcceleratorAnswer } from '../../../src/qemu/accelerator.ts';
import { probeGuest, x86ProbeCode } from '../../../src/qemu/probe-guest.ts';
import { findOnPath } from '../../../src/host/programs.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let folder: string;
let ctx: TestContext;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-accel-'));
  ctx = await testContext({ path: folder });
  await writeFile(join(folder, 'kvm'), '');
});

afterEach(async () => {
  await ctx.remove();
  await rm(folder, { recursive: true, force: true });
});

/**
 * A qemu-system-x86_64 that tells its version, does `behaviour` when it is given the probe guest under KVM, and
 * refuses all else. `exec` keeps a program that hangs the one that is killed.
 */
async function fakeQemu(behaviour: string): Promise<void> {
  const file = join(folder, 'qemu-system-x86_64');
  await writeFile(
    file,
    `#!/bin/sh
case "$*" in
--version) echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)' ;;
*'-accel kvm -cpu host'*'-bios '*guest.bin*isa-debug-exit*) echo run >> '${folder}/runs'; echo $$ > '${folder}/pid'; ${behaviour} ;;
*) echo "fake qemu: unexpected $*" >&2; exit 99 ;;
esac
`,
  );
  await chmod(file, 0o755);
}

async function runs(): Promise<number> {
  return (await readFile(join(folder, 'runs'), 'utf8').catch(() => '')).split('\n').length - 1;
}

function choose(more: { refresh?: boolean; deadline?: number } = {}): Promise<AcceleratorAnswer> {
  return chooseAccelerator(ctx, {
    architecture: 'x86_64',
    choice: 'auto',
    platform: 'linux',
    kvmDevice: join(folder, 'kvm'),
    deadline: 30_000,
    ...more,
  });
}

test('KVM is taken when the guest got through, and asked once', async () => {
  await fakeQemu('exit 33');
  const answer = { accelerator: 'kvm', reason: 'KVM works: a test guest ran in it' };
  expect(await choose()).toEqual(answer);
  expect(await choose()).toEqual(answer);
  expect(await runs()).toBe(1);
  await choose({ refresh: true });
  expect(await runs()).toBe(2);
});

test('a guest that hangs is ended at the deadline, whatever it heeds, and leaves nothing', async () => {
  // The shell ignores SIGTERM and hands that on.
  await fakeQemu(`trap '' TERM; exec ${await findOnPath(process.env, 'sleep')} 1000`);
  expect(await choose({ deadline: 300 })).toMatchObject({
    accelerator: 'tcg',
    reason: 'KVM is here, but a test guest did not get through long mode in 0.3 s; using TCG (slower)',
  });
  const pid = Number(await readFile(join(folder, 'pid'), 'utf8'));
  expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  expect((await readdir(ctx.folder)).filter((name) => name.startsWith('zfsdev-probe'))).toEqual([]);
});

test.each([
  ["echo 'qemu-system-x86_64: error: failed to set MSR' >&2; kill -ABRT $$", 'failed to set MSR'],
  ['exit 0', 'ended with exit code 0'],
  ['exit 1', 'made QEMU fail'],
])('a QEMU that does otherwise means TCG: %s', async (behaviour, why) => {
  await fakeQemu(behaviour);
  const { accelerator, reason } = await choose();
  expect(accelerator).toBe('tcg');
  expect(reason).toContain(why);
});

test('no KVM: says so, and runs nothing; a KVM that appears is tried', async () => {
  await fakeQemu('exit 33');
  await rm(join(folder, 'kvm'));
  const { accelerator, reason } = await choose();
  expect({ accelerator, reason }).toEqual({
    accelerator: 'tcg',
    reason: `this host has no ${folder}/kvm; using TCG (slower)`,
  });
  expect(await runs()).toBe(0);
  await writeFile(join(folder, 'kvm'), '');
  expect((await choose()).accelerator).toBe('kvm');
});

test('another QEMU, other rights, or a damaged answer: probed again', async () => {
  await fakeQemu('exit 33');
  await choose();
  await utimes(join(folder, 'qemu-system-x86_64'), 1, 1);
  await choose();
  expect(await runs()).toBe(2);
  await chmod(join(folder, 'kvm'), 0o600);
  await choose();
  expect(await runs()).toBe(3);
  await writeFile(ctx.paths.accelerator, '{"key": ');
  await choose();
  expect(await runs()).toBe(4);
});

test("the user's choice is taken without a question, even without QEMU", async () => {
  expect(await chooseAccelerator(ctx, { architecture: 'x86_64', choice: 'kvm' })).toEqual({
    accelerator: 'kvm',
    reason: '',
  });
});

test('no QEMU, or one too old: the command that mends it', async () => {
  await expect(choose()).rejects.toMatchObject({
    reason: 'dependency',
    hint: expect.stringContaining('qemu-system-x86') as string,
  });
  await fakeQemu('exit 33');
  const file = join(folder, 'qemu-system-x86_64');
  await writeFile(file, (await readFile(file, 'utf8')).replace('7.2.22', '5.2.0'));
  await expect(choose()).rejects.toMatchObject({
    reason: 'dependency',
    message: 'qemu-system-x86_64 is version 5.2.0, and zfsdev needs 6.2 or later',
  });
});

test('the x86_64 probe begins at the reset vector, with a jump to its first byte', () => {
  const rom = probeGuest('x86_64').image;
  expect(rom).toHaveLength(64 * 1024);
  expect([...rom.slice(-16, -11)]).toEqual([0xea, 0, 0, 0, 0xf0]);
  expect(rom.slice(0, x86ProbeCode().length)).toEqual(new Uint8Array(x86ProbeCode()));
});

test('the bytes of the probe guest are those of its source', async () => {
  const source = join(import.meta.dirname, '../../../src/qemu/probe-guest.S');
  // The source these bytes were assembled from, for hosts that have no assembler for it.
  const digest = createHash('sha256').update(await readFile(source));
  expect(digest.digest('hex')).toBe('2a5b6e6ca8465114798c716769bb7deba3be892d1024fac0b18fad8d772edb23');
  const assembler = process.arch === 'x64' ? await findOnPath(process.env, 'as') : undefined;
  if (assembler === undefined) return;
  const [object, binary] = [join(folder, 'probe.o'), join(folder, 'probe.bin')];
  execFileSync('as', ['--64', '-o', object, source]);
  execFileSync('objcopy', ['-O', 'binary', '-j', '.text', object, binary]);
  expect((await readFile(binary)).toString('hex')).toBe(Buffer.from(x86ProbeCode()).toString('hex'));
});
