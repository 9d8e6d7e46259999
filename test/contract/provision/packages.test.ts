import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ExpectedCall, FakeProgram } from '../../fakes/programs.ts';
import { ScriptHouse, type Ended } from './support.ts';

let house: ScriptHouse;
beforeEach(async () => {
  house = await ScriptHouse.open();
});
afterEach(() => house.close());

const apt = ['-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=3'];
const asRoot: FakeProgram = { calls: [{ argv: ['-u'], stdout: '0\n' }] };
const asUser: FakeProgram = { calls: [{ argv: ['-u'], stdout: '1000\n' }] };

/** What apt-get was asked for, without the options that are always there. */
async function aptCalls(): Promise<string[]> {
  const calls = (await house.calls()).filter((call) => call.startsWith('apt-get'));
  return calls.map((call) =>
    call
      .replace(/^apt-get | ?-o \S+|-q|-y|--no-install-recommends/g, '')
      .replace(/ +/g, ' ')
      .trim(),
  );
}

describe('zfs-packages.sh', () => {
  interface Guest {
    readonly system: string;
    /** The time at which the module can be loaded, of those that it is tried; undefined if never. */
    readonly loadsAt?: number;
    /** Packages that the archive has. */
    readonly offers?: readonly string[];
    readonly hasTools?: boolean;
    readonly update?: Partial<ExpectedCall>;
    readonly install?: Partial<ExpectedCall>;
    readonly id?: FakeProgram;
  }

  async function play({ system, loadsAt, offers = [], hasTools = false, ...more }: Guest): Promise<Ended> {
    await mkdir(house.at('apt/sources.list.d'), { recursive: true });
    await writeFile(house.at('os-release'), `ID=${system}\n`);
    const tool: FakeProgram = { calls: [], absent: !hasTools };
    const brings = (...packages: string[]): ExpectedCall => ({
      argv: [...apt, '-q', '-y', 'install', '--no-install-recommends', ...packages],
      env: { DEBIAN_FRONTEND: 'noninteractive' },
      ...more.install,
      ...(packages.includes('zfsutils-linux') && !more.install?.exitCode ? { brings: ['zpool', 'zfs'] } : {}),
    });
    const packages = ['kmod', 'zfsutils-linux', ...offers.filter((name) => !name.includes('headers'))];
    const fails: ExpectedCall = { argv: ['zfs'], exitCode: 1, times: (loadsAt ?? Infinity) - 1 };
    await house.play(
      {
        id: more.id ?? asRoot,
        uname: { calls: [{ argv: ['-r'], stdout: '6.8.0-1-test\n' }] },
        modprobe: {
          calls:
            loadsAt === 1
              ? [{ argv: ['zfs'] }]
              : [loadsAt ? fails : { ...fails, times: 99 }, { argv: ['zfs'] }],
        },
        'apt-get': {
          calls: [
            { argv: [...apt, '-q', '-y', 'update'], ...more.update },
            { argv: [...apt, '-q', '-y', 'clean'] },
            ...packages.map((name) => brings(name)),
            brings('linux-headers-6.8.0-1-test', 'zfs-dkms'),
          ],
        },
        'apt-cache': {
          calls: [
            ...offers.map((name) => ({ argv: ['show', name] })),
            { argv: ['show', /./], exitCode: 100 },
          ],
        },
        zpool: tool,
        zfs: tool,
      },
      ['sed'],
    );
    return house.run('zfs-packages.sh', [], { ZFSDEV_ETC: house.root });
  }

  it.each(['ubuntu', 'debian', 'fedora'])('does nothing on %s where all is there', async (system) => {
    expect(await play({ system, loadsAt: 1, hasTools: true })).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: '',
    });
    expect(await aptCalls()).toEqual([]);
  });

  it("takes the module of Ubuntu's own kernel packages, one after the other until it loads", async () => {
    const offers = ['linux-modules-6.8.0-1-test', 'linux-modules-extra-6.8.0-1-test'];
    // Asked before anything is done, and before each of three packages.
    expect(await play({ system: 'ubuntu', loadsAt: 4, offers })).toMatchObject({ exitCode: 0, stderr: '' });
    expect((await aptCalls()).filter((call) => call !== 'clean')).toEqual([
      'update',
      'install kmod',
      ...offers.map((name) => `install ${name}`),
      'install zfsutils-linux',
    ]);
  });

  it('compiles it on Debian, from contrib', async () => {
    const lists = ['deb http://mirror.example/debian trixie main', 'deb http://x/ trixie main contrib'];
    await mkdir(house.at('apt/sources.list.d'), { recursive: true });
    await writeFile(house.at('apt/sources.list'), `${lists.join('\n')}\n`);
    const sources = 'Types: deb deb-src\nComponents: main non-free-firmware\n';
    await writeFile(house.at('apt/sources.list.d/debian.sources'), sources);
    const offers = ['linux-headers-6.8.0-1-test'];
    expect(await play({ system: 'debian', loadsAt: 2, offers })).toMatchObject({ exitCode: 0, stderr: '' });
    expect((await aptCalls()).filter((call) => call !== 'clean')).toEqual([
      'update',
      'install kmod',
      'install linux-headers-6.8.0-1-test zfs-dkms',
      'install zfsutils-linux',
    ]);
    expect(await readFile(house.at('apt/sources.list'), 'utf8')).toBe(`${lists[0]} contrib\n${lists[1]}\n`);
    expect(await readFile(house.at('apt/sources.list.d/debian.sources'), 'utf8')).toBe(
      'Types: deb deb-src\nComponents: main non-free-firmware contrib\n',
    );
  });

  it.each<[string, Guest, string]>([
    [
      'no network',
      { system: 'ubuntu', update: { exitCode: 100 } },
      "the package lists can't be fetched: is there a network?",
    ],
    [
      'a package that can not be installed',
      { system: 'ubuntu', install: { exitCode: 100 } },
      'apt-get could not install kmod',
    ],
    [
      'a Debian whose kernel is no longer offered',
      { system: 'debian' },
      'Debian no longer offers linux-headers-6.8.0-1-test',
    ],
    ['another system', { system: 'fedora' }, 'knows Debian and Ubuntu, not fedora'],
    [
      'a module that does not load all the same',
      { system: 'ubuntu', hasTools: true },
      'the zfs module does not load into the kernel 6.8.0-1-test',
    ],
    ['another user than root', { system: 'ubuntu', id: asUser }, 'must run as root'],
  ])('ends with its own words at %s', async (_, guest, words) => {
    const { exitCode, stderr } = await play(guest);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`zfs-packages.sh: ${words}`);
  });
});

describe('build-tools.sh', () => {
  /** @param absent of the packages it wants, those that are not installed. */
  async function play(absent: readonly string[], more: Partial<ExpectedCall> = {}): Promise<Ended> {
    const query = (name: string | RegExp, answer: Partial<ExpectedCall>): ExpectedCall => ({
      argv: ['--show', '--showformat=${db:Status-Status}', name],
      ...answer,
    });
    await house.play(
      {
        id: asRoot,
        'dpkg-query': {
          calls: [
            ...absent.map((name) =>
              query(name, name === 'flex' ? { stdout: 'config-files' } : { exitCode: 1 }),
            ),
            query(/./, { stdout: 'installed' }),
          ],
        },
        'apt-get': {
          calls: [
            { argv: [...apt, '-y', '-q', 'update'], ...more },
            { argv: [...apt, '-y', '-q', 'install', '--no-install-recommends', ...absent] },
            { argv: ['clean'] },
          ],
        },
      },
      [],
    );
    return house.run('build-tools.sh', [], {});
  }

  it('does nothing where all is there, and needs no network then', async () => {
    expect(await play([])).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(await aptCalls()).toEqual([]);
  });

  it('installs what is missing, or was removed before', async () => {
    expect(await play(['dwarves', 'flex'])).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await aptCalls()).toEqual(['update', 'install dwarves flex', 'clean']);
  });

  it('ends with its own words where there is no network', async () => {
    expect(await play(['dwarves'], { exitCode: 100 })).toMatchObject({
      exitCode: 1,
      stderr: 'build-tools.sh: the package lists could not be fetched\n',
    });
  });
});
