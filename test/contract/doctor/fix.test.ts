import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { installDependencies } from '../../../src/doctor/fix.ts';
import type { Terminal } from '../../../src/ui/confirm.ts';
import type { ExpectedCall, FakeProgram } from '../../fakes/programs.ts';
import { debian, present, scene, without, type Scene, type SceneOptions } from './support.ts';

let here: Scene;

async function begin(options: SceneOptions): Promise<Scene> {
  here = await scene(options);
  return here;
}

afterEach(async () => {
  await here.fakes.verify();
  await here.remove();
});

const noninteractive = ['DEBIAN_FRONTEND=noninteractive', 'apt-get', '-o', 'DPkg::Lock::Timeout=300'];
const installArgv = [...noninteractive, 'install', '-y', '--no-install-recommends', 'mmdebstrap'];
const install = `env ${installArgv.join(' ')}`;
const update = `env ${noninteractive.join(' ')} update`;
const installs: ExpectedCall = { argv: installArgv, brings: ['mmdebstrap'] };
const updates: ExpectedCall = { argv: [...noninteractive, 'update'] };
const aptGet: FakeProgram = { calls: [] };
const apt = (...calls: readonly ExpectedCall[]): Record<string, FakeProgram> => ({
  ...without('mmdebstrap'),
  'apt-get': aptGet,
  env: { calls },
});

function fix(terminal?: Terminal, yes = terminal === undefined): Promise<void> {
  return installDependencies(
    { ctx: here.ctx, end: () => Promise.resolve() },
    { yes, host: here.host, ...(terminal === undefined ? {} : { terminal }) },
  );
}

async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  const error: unknown = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof Failure)) throw new Error(`not a Failure: ${String(error)}`);
  return error;
}

/** A terminal on which somebody has typed this. */
function terminalTyping(text: string): Terminal {
  const input = Object.assign(new PassThrough(), { isTTY: true });
  input.write(text);
  return { input, output: Object.assign(new PassThrough(), { isTTY: true }) };
}

const noTerminal: Terminal = { input: new PassThrough(), output: new PassThrough() };

describe('on Debian as root', () => {
  it('installs what is missing, after showing the command', async () => {
    await begin({ programs: apt(installs) });
    await fix();
    expect(await here.changes()).toEqual([install]);
    expect(here.events[0]).toEqual({ type: 'notice', level: 'info', text: `To be run:\n  ${install}` });
    expect(here.events.map(({ type }) => type)).toEqual(['notice', 'step-started', 'step-done']);
  });

  it('installs nothing when nothing is missing', async () => {
    await begin({ programs: { ...present, 'apt-get': aptGet } });
    await fix();
    expect(await here.changes()).toEqual([]);
    expect(here.events).toEqual([]);
  });

  it('takes an optional program for not missing', async () => {
    await begin({ programs: { ...without('limactl'), 'apt-get': aptGet } });
    await fix();
    expect(await here.changes()).toEqual([]);
  });

  it('takes an optional thing for missing where this work needs it', async () => {
    await begin({ programs: { ...present, 'apt-get': aptGet }, dryRun: true });
    const installer = { ctx: here.ctx, end: () => Promise.resolve() };
    await installDependencies(installer, { yes: true, needed: ['uefi'], host: here.host });
    const firmware = process.arch === 'arm64' ? 'qemu-efi-aarch64' : 'ovmf';
    expect(here.events).toEqual([{ type: 'would', text: `run ${install.replace('mmdebstrap', firmware)}` }]);
  });

  it('fetches the lists of packages first where there are none', async () => {
    const files = Object.fromEntries(Object.entries(debian).filter(([path]) => !path.startsWith('var/')));
    await begin({ programs: apt(updates, installs), files });
    await fix();
    expect(await here.changes()).toEqual([update, install]);
  });

  it('fetches newer lists once if a package is not found', async () => {
    const unknown = {
      argv: installArgv,
      times: 1,
      exitCode: 100,
      stderr: 'E: Unable to locate package mmdebstrap\n',
    };
    await begin({ programs: apt(unknown, updates, installs) });
    await fix();
    expect(await here.changes()).toEqual([install, update, install]);
  });

  it("shows apt-get's last lines when it fails", async () => {
    const stderr =
      "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.\n";
    await begin({ programs: apt({ argv: installArgv, exitCode: 100, stderr }) });
    const failure = await failureOf(fix());
    expect(failure).toMatchObject({
      reason: 'process',
      message: `installing failed: ${install}`,
      detail: stderr.trim(),
    });
    expect(failure.hint).toContain('zfsdev doctor --fix');
  });

  it('says what is still missing after apt-get was content', async () => {
    await begin({ programs: apt({ argv: installArgv }) });
    expect(await failureOf(fix())).toMatchObject({
      reason: 'dependency',
      exitCode: 5,
      detail: 'mmdebstrap: not installed',
    });
  });

  it('prints only, under --dry-run', async () => {
    await begin({ programs: apt(), dryRun: true });
    await fix();
    expect(await here.changes()).toEqual([]);
    expect(here.events).toEqual([{ type: 'would', text: `run ${install}` }]);
  });
});

describe('consent', () => {
  it('is asked for on a terminal', async () => {
    await begin({ programs: apt(installs) });
    await fix(terminalTyping('y\n'));
    expect(await here.changes()).toEqual([install]);
  });

  it('may be refused; then nothing is done', async () => {
    await begin({ programs: apt() });
    expect(await failureOf(fix(terminalTyping('n\n')))).toMatchObject({
      reason: 'dependency',
      hint: install,
    });
    expect(await here.changes()).toEqual([]);
  });

  it('cannot be had off a terminal without --yes', async () => {
    await begin({ programs: apt() });
    expect(await failureOf(fix(noTerminal, false))).toMatchObject({ exitCode: 2, hint: 'add --yes' });
    expect(await here.changes()).toEqual([]);
  });

  it('ends with the terminal (Ctrl-D)', async () => {
    await begin({ programs: apt() });
    const terminal = terminalTyping('');
    (terminal.input as PassThrough).end();
    expect(await failureOf(fix(terminal))).toMatchObject({ reason: 'interrupted' });
  });
});

describe('as an ordinary user', () => {
  const sudo = (...calls: readonly ExpectedCall[]): Record<string, FakeProgram> => ({
    ...without('mmdebstrap'),
    'apt-get': aptGet,
    unshare: { calls: [] },
    sudo: { calls },
  });
  const canSudo: ExpectedCall = { argv: ['-n', 'true'] };
  const asksPassword: ExpectedCall = { ...canSudo, exitCode: 1, stderr: 'sudo: a password is required\n' };

  it('goes through sudo', async () => {
    await begin({
      uid: 1000,
      programs: sudo(canSudo, { argv: ['env', ...installArgv], brings: ['mmdebstrap'] }),
    });
    await fix();
    expect(await here.changes()).toEqual([`sudo ${install}`]);
  });

  it('gives sudo the terminal if it asks for a password', async () => {
    await begin({ uid: 1000, programs: sudo(asksPassword), attach: () => Promise.resolve(1) });
    const failure = await failureOf(fix(terminalTyping(''), true));
    expect(here.attached).toEqual([['sudo', 'env', ...installArgv]]);
    expect(failure).toMatchObject({
      reason: 'process',
      message: `this failed with exit code 1: sudo ${install}`,
    });
  });

  it('says what to type if sudo asks for a password and there is no terminal', async () => {
    await begin({ uid: 1000, programs: sudo(asksPassword) });
    const failure = await failureOf(fix(noTerminal, true));
    expect(failure).toMatchObject({ reason: 'dependency' });
    expect(failure.hint).toContain(`sudo ${install}`);
    expect(here.attached).toEqual([]);
  });

  it('says what to type as root where there is no sudo', async () => {
    await begin({ uid: 1000, programs: { ...without('mmdebstrap'), 'apt-get': aptGet } });
    const failure = await failureOf(fix());
    expect(failure).toMatchObject({ reason: 'dependency' });
    expect(failure.hint).toContain(`  ${install}`);
    expect(failure.hint).not.toContain('sudo');
  });

  it('gives the user a range of sub-ids', async () => {
    const usermod = ['usermod', '--add-subuids', '100000-165535', '--add-subgids', '100000-165535', 'ada'];
    const files = Object.fromEntries(Object.entries(debian).filter(([path]) => !path.startsWith('etc/sub')));
    await begin({
      uid: 1000,
      files,
      programs: { ...present, 'apt-get': aptGet, sudo: { calls: [canSudo, { argv: usermod }] } },
    });
    // The fake usermod writes nothing, so the second look finds nothing either.
    expect(await failureOf(fix())).toMatchObject({ message: 'still missing after installing: sub-ids' });
    expect(await here.changes()).toEqual([`sudo ${usermod.join(' ')}`]);
  });
});

describe('elsewhere', () => {
  it('names the programs on a distribution whose packages it does not know', async () => {
    const files = { ...debian, 'etc/os-release': 'PRETTY_NAME="Fedora Linux 42"\nID=fedora\n' };
    await begin({ programs: without('mmdebstrap', 'qemu-img'), files });
    const failure = await failureOf(fix());
    expect(failure).toMatchObject({
      reason: 'dependency',
      message: 'these must be installed by hand on Fedora Linux 42: qemu-img, mmdebstrap',
    });
  });

  it('uses Homebrew on macOS, where Lima is needed', async () => {
    const brew: FakeProgram = { calls: [{ argv: ['install', 'lima'], brings: ['limactl'] }] };
    await begin({ platform: 'darwin', files: {}, uid: 501, programs: { ...without('limactl'), brew } });
    await fix();
    expect(await here.changes()).toEqual(['brew install lima']);
  });
});
