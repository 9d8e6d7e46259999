import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ExpectedCall } from '../../fakes/programs.ts';
import { ScriptHouse, type Ended } from './support.ts';

const socket = 'zfsdev-zvold.socket';
const service = 'zfsdev-zvold.service';
const isActive = ['is-active', '--quiet', socket];
let house: ScriptHouse;

beforeEach(async () => {
  house = await ScriptHouse.open();
  await writeFile(house.at('pool.conf'), 'POOL_NAME=testpool\n');
  await writeFile(house.at('node'), '#!/bin/sh\n[ "$1" = --version ] && echo v18.19.1\nexit 0\n', {
    mode: 0o755,
  });
  await mkdir(house.at('sent'));
  for (const name of ['zvold.cjs', 'zvold.sh', socket, service])
    await writeFile(house.at('sent', name), `new ${name}\n`);
});
afterEach(() => house.close());

interface Guest {
  /** How the socket is each time it is asked for. */
  readonly active?: readonly boolean[];
  readonly systemctl?: readonly ExpectedCall[];
  readonly apt?: readonly ExpectedCall[];
  readonly hasQemuImg?: boolean;
}

async function play({ active = [], systemctl = [], apt, hasQemuImg = true }: Guest = {}): Promise<void> {
  await house.play(
    {
      systemctl: {
        calls: [...active.map((yes) => ({ argv: isActive, times: 1, exitCode: yes ? 0 : 3 })), ...systemctl],
      },
      flock: { calls: [{ argv: ['9'] }] },
      ...(apt ? { 'apt-get': { calls: apt } } : {}),
      ...(hasQemuImg ? { 'qemu-img': { calls: [] } } : {}),
    },
    ['install', 'ln', 'mkdir', 'mv', 'rm'],
  );
}

function run(...args: readonly string[]): Promise<Ended> {
  return house.run('zvold.sh', args, {
    ZFSDEV_LIBRARY: house.at('library'),
    ZFSDEV_UNITS: house.at('units'),
    ZFSDEV_POOL_CONF: house.at('pool.conf'),
    ZFSDEV_ZVOLD_LOCK: house.at('lock'),
    ZFSDEV_NODE: house.at('node'),
  });
}

const installs: readonly ExpectedCall[] = [
  { argv: ['daemon-reload'], times: 1 },
  { argv: ['stop', socket, service], times: 1 },
  { argv: ['start', socket], times: 1 },
];

const library = (name: string): Promise<string> => readFile(house.at('library', name), 'utf8');

describe('zvold.sh install', () => {
  it('puts all in place, and has systemd wait for clients from then on', async () => {
    await play({ active: [false, true], systemctl: installs });
    expect(await run('install', house.at('sent'), 'abc')).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(await library('zvold.cjs')).toBe('new zvold.cjs\n');
    expect(await library('zvold.digest')).toBe('abc\n');
    expect((await readdir(house.at('library'))).sort()).toEqual(['zvold.cjs', 'zvold.digest', 'zvold.sh']);
    expect((await readdir(house.at('units'))).sort()).toEqual(['multi-user.target.wants', service, socket]);
    expect(await readlink(house.at('units/multi-user.target.wants', socket))).toBe(house.at('units', socket));
  });

  it('takes the place of another version, whose daemon ends', async () => {
    await mkdir(house.at('library'));
    await writeFile(house.at('library/zvold.cjs'), 'old');
    await writeFile(house.at('library/zvold.digest'), 'old\n');
    await play({ active: [false, true], systemctl: installs });
    expect(await run('install', house.at('sent'), 'abc')).toMatchObject({ exitCode: 0 });
    expect(await library('zvold.cjs')).toBe('new zvold.cjs\n');
    expect((await house.calls()).filter((call) => call.startsWith('systemctl stop'))).toHaveLength(1);
  });

  it('does not count as done when the socket does not come up', async () => {
    await play({
      active: [false],
      systemctl: [
        ...installs.slice(0, 2),
        { argv: ['start', socket], exitCode: 1, stderr: 'no such unit\n' },
      ],
    });
    const { exitCode, stderr } = await run('install', house.at('sent'), 'abc');
    expect(stderr).toBe(`no such unit\nzvold.sh: ${socket} does not start\n`);
    expect(exitCode).toBe(1);
    expect(existsSync(house.at('library/zvold.digest'))).toBe(false);
  });

  it('is not deceived by a unit that was skipped', async () => {
    await play({ active: [false, false], systemctl: installs });
    expect(await run('install', house.at('sent'), 'abc')).toMatchObject({
      exitCode: 1,
      stderr: `zvold.sh: ${socket} was started, and is not there\n`,
    });
  });

  it('refuses a Node that is too old, and says which one it is', async () => {
    await writeFile(
      house.at('node'),
      '#!/bin/sh\nif [ "$1" = --version ]; then echo v12.22.9; else exit 1; fi\n',
    );
    await play();
    expect(await run('install', house.at('sent'), 'abc')).toMatchObject({
      exitCode: 1,
      stderr: `zvold.sh: zvold runs on Node.js 18 or later, and ${house.at('node')} is v12.22.9\n`,
    });
    expect(existsSync(house.at('library'))).toBe(false);
  });

  it('fails on a file that was not sent, with nothing that counts as installed', async () => {
    await mkdir(house.at('library'));
    await writeFile(house.at('library/zvold.digest'), 'old\n');
    await play();
    expect((await run('install', house.at('nowhere'), 'abc')).exitCode).not.toBe(0);
    expect(existsSync(house.at('library/zvold.digest'))).toBe(false);
  });
});

describe('zvold.sh start', () => {
  beforeEach(async () => {
    await mkdir(house.at('library'));
    await writeFile(house.at('library/zvold.digest'), 'abc\n');
  });

  it('does nothing where it waits for clients already', async () => {
    await play({ active: [true, true] });
    expect(await run('start', 'abc')).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  });

  it('starts it after a boot', async () => {
    await play({ active: [false, true], systemctl: [{ argv: ['start', socket], times: 1 }] });
    expect(await run('start', 'abc')).toMatchObject({ exitCode: 0 });
  });

  it('asks for the other version with an exit code of its own', async () => {
    await play();
    expect(await run('start', 'def')).toEqual({ exitCode: 3, stdout: '', stderr: '' });
    expect(await house.calls()).toEqual([]);
  });

  it('says that there is no pool', async () => {
    await play();
    const conf = house.at('pool.conf');
    const { exitCode, stderr } = await house.run('zvold.sh', ['start', 'abc'], {
      ZFSDEV_LIBRARY: house.at('library'),
      ZFSDEV_POOL_CONF: `${conf}.none`,
    });
    expect(stderr).toBe(`zvold.sh: this machine has no pool: there is no ${conf}.none\n`);
    expect(exitCode).toBe(1);
  });
});

describe('zvold.sh missing', () => {
  it('tells nothing where all is there', async () => {
    await play();
    expect(await run('missing')).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  });

  it('names the packages of what is not', async () => {
    await play({ hasQemuImg: false });
    await writeFile(house.at('node'), '', { mode: 0o644 });
    const { exitCode, stdout } = await house.run('zvold.sh', ['missing'], { ZFSDEV_NODE: house.at('none') });
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: 'nodejs\nqemu-utils\n' });
  });
});

describe('zvold.sh packages', () => {
  const apt = (...words: readonly string[]): ExpectedCall => ({
    argv: ['-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=3', '-q', '-y', ...words],
    env: { DEBIAN_FRONTEND: 'noninteractive' },
    times: 1,
  });

  it('installs them without a question, and keeps no archives', async () => {
    await play({ apt: [apt('update'), apt('install', '--no-install-recommends', 'nodejs'), apt('clean')] });
    expect(await run('packages', 'nodejs')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await house.calls()).toHaveLength(3);
  });

  it('asks for a network where the lists can not be fetched', async () => {
    await play({ apt: [{ ...apt('update'), exitCode: 100, stderr: 'E: no route\n' }] });
    expect(await run('packages', 'nodejs')).toMatchObject({
      exitCode: 1,
      stderr: "E: no route\nzvold.sh: the package lists can't be fetched: is there a network?\n",
    });
  });

  it('says what it could not install', async () => {
    await play({
      apt: [apt('update'), { ...apt('install', '--no-install-recommends', 'nodejs'), exitCode: 100 }],
    });
    expect(await run('packages', 'nodejs')).toMatchObject({
      exitCode: 1,
      stderr: 'zvold.sh: apt-get could not install nodejs\n',
    });
  });

  it('knows no other package manager, and says what to do', async () => {
    await play();
    expect(await run('packages', 'nodejs')).toMatchObject({
      exitCode: 1,
      stderr: 'zvold.sh: knows Debian and Ubuntu; install by hand what gives nodejs\n',
    });
  });
});

it('says how it is called', async () => {
  await play();
  expect((await run('stop')).stderr).toContain('usage: zvold.sh start DIGEST');
});
