import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ExpectedCall, FakeProgram } from '../../fakes/programs.ts';
import { provision, ScriptHouse, type Ended } from './support.ts';

let house: ScriptHouse;
let build: string;
beforeEach(async () => {
  house = await ScriptHouse.open();
  build = house.at('build');
  await mkdir(join(build, 'in/fragments'), { recursive: true });
  await cp(join(provision, 'kernel'), house.at('kernel'), { recursive: true });
  // Where there is no zstd, any packer will do.
  const pack = house.at('kernel/pack.sh');
  await writeFile(pack, (await readFile(pack, 'utf8')).replace('zstd -T0 -q', 'gzip'));
});
afterEach(() => house.close());

const settings = {
  SOURCE_KIND: 'archive',
  SOURCE: '/there/linux.tar',
  SOURCE_REF: '',
  SOURCE_SHA256: '',
  CONFIG: 'tinyconfig',
  CONFIG_NAME: 'tinyconfig',
  GUEST: 'no',
  LOCALVERSION: '-test',
  ZFS: 'none',
  ZFS_NAME: 'none',
  JOBS: 1,
  NEEDED_KIB: 1,
  BUILD_TIME: 'then',
  TRIM: 'no',
  TOOLS: 'there',
  OPTIONS: '{}',
};

const real =
  'awk basename cat chmod cp cut date df dirname du env find flock grep gzip head mkdir mv rm sed sha256sum sort tail tar tee tr xargs';

/** A call of the kernel's own make. */
function kernel(targets: readonly string[], more: Partial<ExpectedCall> = {}): ExpectedCall {
  const fixed = ['KBUILD_BUILD_USER=zfsdev', 'KBUILD_BUILD_HOST=zfsdev', 'KBUILD_BUILD_TIMESTAMP=then'];
  const argv = ['-C', join(build, 'src'), 'ARCH=x86_64', 'CC=gcc', ...fixed, 'LOCALVERSION=', ...targets];
  return { argv, ...more };
}

/** Files of the build that a call leaves behind. */
function leaves(files: Readonly<Record<string, string>>): Pick<ExpectedCall, 'leaves'> {
  return {
    leaves: Object.fromEntries(Object.entries(files).map(([name, text]) => [join(build, name), text])),
  };
}

const none: FakeProgram = { calls: [] };

/** What a phase calls, where the compiler and the kernel are played. */
function programs(): Record<string, FakeProgram> {
  const modules = 'stage/lib/modules/6.99.0-test';
  const install = [`INSTALL_MOD_PATH=${join(build, 'stage')}`, 'INSTALL_MOD_STRIP=1', 'DEPMOD=true'];
  const initCpio = join(build, 'src/usr/gen_init_cpio.c');
  const object = { 'src/kernel/one.o': 'object', 'src/kernel/one.ko': 'module' };
  const image = { 'src/arch/x86/boot/bzImage': 'kernel', 'src/System.map': 'symbols' };
  return {
    uname: { calls: [{ argv: ['-m'], stdout: 'x86_64\n' }] },
    sync: { calls: [{ argv: ['-f', build] }] },
    make: {
      calls: [
        kernel(['-s', 'kernelversion'], { stdout: '6.99.0\n' }),
        // Only what is configured a second time has something to be cleaned of.
        kernel(['mrproper'], { times: 1 }),
        kernel(['tinyconfig'], leaves({ 'src/.config': 'CONFIG_MODULES=y\nCONFIG_LOCALVERSION="-test"\n' })),
        kernel(['olddefconfig']),
        kernel(
          ['include/config/kernel.release'],
          leaves({ 'src/include/config/kernel.release': '6.99.0-test' }),
        ),
        kernel(['-j', '1', 'bzImage', 'modules'], leaves({ ...object, ...image })),
        kernel(
          ['-j', '1', ...install, 'modules_install'],
          leaves({ [`${modules}/one.ko`]: 'module', [`${modules}/modules.order`]: '' }),
        ),
      ],
    },
    gcc: {
      calls: [
        { argv: ['--version'], stdout: 'gcc 14\nmore\n' },
        { argv: ['-O2', '-o', join(build, 'cost'), initCpio] },
        {
          argv: ['-O1', '-o', join(build, 'gen_init_cpio'), initCpio],
          // It packs what its list names; here the list is as good.
          leaves: { [join(build, 'gen_init_cpio')]: { copyOf: '/bin/cat' } },
        },
      ],
    },
    depmod: {
      calls: [{ argv: ['-b', join(build, 'stage'), '-F', join(build, 'stage/System.map'), '6.99.0-test'] }],
    },
    modprobe: {
      calls: [
        {
          argv: ['-d', join(build, 'stage'), '--set-version', '6.99.0-test', '--show-depends', /./],
          exitCode: 1,
        },
      ],
    },
    ...Object.fromEntries(
      ['ar', 'bc', 'bison', 'busybox', 'flex', 'ld', 'nm', 'objcopy', 'strip', 'xz', 'zstd'].map((name) => [
        name,
        none,
      ]),
    ),
  };
}

async function put(files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(build, name)), { recursive: true });
    await writeFile(join(build, name), text);
  }
}

/** Packs files as an archive with one folder at its top. */
async function archive(name: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(house.at('tree/top', file)), { recursive: true });
    await writeFile(house.at('tree/top', file), text);
  }
  expect(spawnSync('tar', ['-C', house.at('tree'), '-cf', join(build, name), 'top']).status).toBe(0);
}

const tree = { Makefile: '', Kconfig: '', 'scripts/kconfig/conf.c': '', 'usr/gen_init_cpio.c': '' };

async function play(
  asked: Readonly<Record<string, string | number>> = {},
  fakes: Readonly<Record<string, FakeProgram>> = {},
): Promise<void> {
  const lines = Object.entries({ ...settings, ...asked }).map(([key, value]) => `${key}='${value}'\n`);
  await writeFile(join(build, 'settings.sh'), lines.join(''));
  const played = { ...programs(), ...fakes };
  await house.play(
    played,
    real.split(' ').filter((name) => !(name in played)),
  );
}

const run = (phase: string, ...jobs: string[]): Promise<Ended> =>
  house.run('kernel-build.sh', [phase, ...jobs], { ZFSDEV_BUILD: build });
const here = (name: string): boolean => existsSync(join(build, name));

describe('a phase that is cut off in its last moment', () => {
  /** Ends of `sync`: what a phase ends with, before its stamp is there and behind it. */
  function syncs(...codes: readonly number[]): FakeProgram {
    return { calls: codes.map((exitCode) => ({ argv: ['-f', build], exitCode, times: 1 })) };
  }

  it('is done again, and the build comes to its end', async () => {
    await archive('in/source.tar', tree);
    const cuts = [1, 0, 1];
    // make begins with one, once for each start of the machine.
    const all = [...cuts, ...cuts, ...cuts, 0, ...cuts, ...cuts, ...cuts, ...cuts, ...cuts];
    await play({}, { sync: syncs(...all) });
    for (const phase of ['preflight', 'source', 'config', 'make', 'modules', 'zfs', 'initrd', 'archive']) {
      const beforeStamp = await run(phase);
      expect({ phase, ...beforeStamp }).toMatchObject({ phase, exitCode: 1, stderr: '' });
      expect(here(`done/${phase}`)).toBe(false);
      const beforeTidying = await run(phase);
      expect({ phase, ...beforeTidying }).toMatchObject({ phase, exitCode: 1, stderr: '' });
      expect(here(`done/${phase}`)).toBe(true);
      // What it told is told again, and what nothing needs any more is taken away.
      const last = await run(phase);
      expect({ phase, ...last }).toMatchObject({ phase, exitCode: 0, stderr: '' });
      const facts = beforeTidying.stdout.split('\n').filter((line) => line.startsWith('@ '));
      expect(last.stdout.trimEnd().split('\n')).toEqual(facts);
    }
    const left = ['in/source.tar', 'fetch', 'src', 'stage', 'pack'].filter(here);
    expect(left).toEqual([]);
    expect(here('out/kernel-6.99.0-test.tar.zst')).toBe(true);
  });
});

describe('make, where it was cut off', () => {
  const ago = (seconds: number): number => Date.now() / 1000 - seconds;

  /** Objects of an earlier make, and when they were written. */
  async function earlier(boot: string): Promise<void> {
    const times = {
      Makefile: 9000,
      'kernel/whole.o': 500,
      'kernel/last.o': 20,
      'kernel/empty.o': 10,
      '.config': 5,
    };
    await put({ 'done/jobs.value': '1\n', 'done/config': '', 'done/boot.value': boot });
    for (const [name, seconds] of Object.entries(times)) {
      await put({ [`src/${name}`]: name === '.config' ? 'CONFIG_MODULES=y\n' : '' });
      await utimes(join(build, 'src', name), ago(seconds), ago(seconds));
    }
    await utimes(join(build, 'done/config'), ago(1000), ago(1000));
  }

  const left = (): string[] =>
    ['Makefile', 'kernel/whole.o', 'kernel/last.o', 'kernel/empty.o', '.config'].filter((name) =>
      here(`src/${name}`),
    );

  it('makes again what may not have reached the disk, if the machine has started anew', async () => {
    await play();
    await earlier('another boot\n');
    expect(await run('make')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(left()).toEqual(['Makefile', 'kernel/whole.o', '.config']);
  });

  it('makes it again also if that was cut off itself', async () => {
    const words = (length: number): RegExp[] => Array.from({ length }, () => /./);
    const looks = { argv: words(7), stdout: `${ago(10)}\n` };
    await play({}, { find: { calls: [looks, { argv: words(11), exitCode: 1 }] } });
    await earlier('another boot\n');
    expect(await run('make')).toMatchObject({ exitCode: 1 });
    await play();
    expect(await run('make')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(left()).toEqual(['Makefile', 'kernel/whole.o', '.config']);
  });

  it('has as many compilers as are asked for now', async () => {
    await play({ JOBS: 7 });
    await earlier(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'));
    await put({ 'done/jobs.value': '7\n' });
    // The kernel's make is called with -j 1, or refused.
    expect(await run('make', '1')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await run('modules', '1')).toMatchObject({ exitCode: 0, stderr: '' });
  });

  it('keeps all of it, if the machine is the same', async () => {
    await play();
    await earlier(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'));
    expect(await run('make')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(left()).toHaveLength(5);
  });
});

describe('a phase that can not be done', () => {
  async function refused(phase: string, words: RegExp): Promise<string> {
    const { exitCode, stdout } = await run(phase);
    expect(stdout).toMatch(words);
    expect(exitCode).toBe(1);
    expect(here(`done/${phase}`)).toBe(false);
    return stdout;
  }

  it('for a program that the last of them needs is refused by the first', async () => {
    await play({}, { depmod: { calls: [], absent: true }, zstd: { calls: [], absent: true } });
    await refused('preflight', /^! programs that a build needs are missing here: depmod zstd$/m);
  });

  it('for want of room is refused by the first', async () => {
    await play({ NEEDED_KIB: 2 ** 50 });
    await refused('preflight', /^! not enough space to build in: \d+ MiB are free, \d+ MiB are needed$/m);
  });

  it('while an earlier run is at work there is refused', async () => {
    await play({}, { flock: { calls: [{ argv: ['-w', '60', '9'], exitCode: 1 }] } });
    await refused('preflight', /^! an earlier run of this build is still at work/m);
  });

  it('for a wrong checksum of what was fetched names both, and keeps nothing of it', async () => {
    const fetched = join(build, 'fetch/source');
    const url = 'http://a.example/linux.tar.xz';
    const curl: FakeProgram = {
      calls: [
        {
          argv: [
            ...[
              '--fail',
              '--location',
              '--silent',
              '--show-error',
              '--retry',
              '3',
              '--connect-timeout',
              '30',
            ],
            ...['--speed-limit', '1000', '--speed-time', '120', '--output', fetched, '--', url],
          ],
          leaves: { [fetched]: 'something else' },
        },
      ],
    };
    await play({ SOURCE_KIND: 'url', SOURCE: url, SOURCE_SHA256: 'a'.repeat(64) }, { curl });
    await refused('source', /^! the checksum of http:\S+ is wrong: [0-9a-f]{64} instead of a{64}$/m);
    expect(here('fetch')).toBe(false);
  });

  it('for a server that falls silent says that the network may be gone', async () => {
    const url = 'http://a.example/linux.tar.xz';
    const words = Array.from({ length: 16 }, () => /./);
    const curl: FakeProgram = {
      calls: [{ argv: words, stderr: 'curl: (28) Operation too slow\n', exitCode: 28 }],
    };
    await play({ SOURCE_KIND: 'url', SOURCE: url }, { curl });
    await refused('source', /can not be fetched: is there a network/);
  });

  it('for a ref that is not there names it, and asks nobody for a password', async () => {
    const url = 'https://a.example/linux.git';
    const low = ['-c', 'http.lowSpeedLimit=1000', '-c', 'http.lowSpeedTime=120'];
    const git: FakeProgram = {
      calls: [
        { argv: ['init', '-q', join(build, 'src.part')] },
        {
          argv: ['-C', join(build, 'src.part'), ...low, 'fetch', '-q', '--depth', '1', '--', url, 'v9.9'],
          env: { GIT_TERMINAL_PROMPT: '0' },
          exitCode: 128,
        },
      ],
    };
    await play({ SOURCE_KIND: 'git', SOURCE: url, SOURCE_REF: 'v9.9' }, { git });
    await refused(
      'source',
      /^! git can not fetch v9\.9 from https:\S+: is there such a ref, and a network\?$/m,
    );
  });

  it("for the distribution's archive, which has changed or is out of reach, tries with new lists once", async () => {
    const apt = ['-o', 'APT::Sandbox::User=root', '-o', 'Acquire::Retries=3', '-q'];
    const fakes = {
      'apt-get': {
        calls: [
          { argv: [...apt, 'update'] },
          { argv: [...apt, 'download', 'linux-source-6.99'], exitCode: 100 },
        ],
      },
      'apt-cache': {
        calls: [{ argv: ['depends', 'linux-source'], stdout: '  Depends: linux-source-6.99\n' }],
      },
      'dpkg-deb': none,
    };
    await play({ SOURCE_KIND: 'debian' }, fakes);
    await refused('source', /^! the package linux-source-6\.99 can not be fetched: is there a network\?$/m);
    const verbs = (await house.calls()).map((call) => /(update|download)/.exec(call)?.[0]);
    expect(verbs.filter(Boolean)).toEqual(['update', 'download', 'update', 'download']);
  });

  it('for OpenZFS that is none is refused before anything is compiled', async () => {
    await archive('in/source.tar', tree);
    await archive('in/zfs.tar', { 'README.md': '' });
    await play({ ZFS: 'archive', ZFS_NAME: '/there/zfs.tar' });
    await refused(
      'source',
      /^! this is not the source of a release of OpenZFS, it has no META: \/there\/zfs\.tar$/m,
    );
  });

  it('for OpenZFS that was cut off names its file', async () => {
    await archive('in/source.tar', tree);
    await put({ 'in/zfs.tar': 'half of it' });
    await play({ ZFS: 'archive', ZFS_NAME: '/there/zfs.tar' });
    await refused('source', /^! the archive is damaged, or not all of it is there: \/there\/zfs\.tar$/m);
  });

  it.each([
    ['SYSTEM_TRUSTED_KEYS', 'debian/certs/debian-uefi-certs.pem'],
    ['SYSTEM_REVOCATION_KEYS', '/nowhere/revoked.pem'],
  ])("for a distribution's own configuration names the file that only it has: %s", async (name, file) => {
    await put({ 'src/Kconfig': '', 'in/config': `CONFIG_LOCALVERSION="-test"\nCONFIG_${name}="${file}"\n` });
    await play({ CONFIG: 'file' });
    const words = `! CONFIG_${name} names a file that this source does not have: ${file}\n`;
    expect(await refused('config', /^! CONFIG_/m)).toContain(words);
  });

  it('takes a configuration whose keys are there, or are none, or are made by make', async () => {
    const options = ['SYSTEM_TRUSTED_KEYS="certs/mine.pem"', 'SYSTEM_REVOCATION_KEYS=""'];
    const made = 'SYSTEM_BLACKLIST_HASH_LIST="certs/signing_key.x509"';
    const lines = ['LOCALVERSION="-test"', ...options, made].map((line) => `CONFIG_${line}\n`);
    await put({ 'src/Kconfig': '', 'src/certs/mine.pem': '', 'in/config': lines.join('') });
    await play({ CONFIG: 'file' });
    expect(await run('config')).toMatchObject({ exitCode: 0, stderr: '' });
  });

  it('for OpenZFS without modules is refused before anything is compiled', async () => {
    const make = programs()['make']?.calls.filter(({ argv }) => !argv.includes('tinyconfig')) ?? [];
    const tiny = kernel(['tinyconfig'], leaves({ 'src/.config': 'CONFIG_LOCALVERSION="-test"\n' }));
    await put({ 'src/Kconfig': '' });
    await play({ ZFS: 'debian' }, { make: { calls: [...make, tiny] } });
    await refused('config', /CONFIG_MODULES is not set$/m);
  });
});

describe('what is told before it is too late', () => {
  it('is that OpenZFS is older than the kernel', async () => {
    await archive('in/source.tar', tree);
    await archive('in/zfs.tar', { META: 'Version: 2.3.9\nLinux-Maximum: 6.17\n', configure: '' });
    await play({ ZFS: 'archive' });
    const { stdout } = await run('source');
    expect(stdout).toContain(
      '@ notice OpenZFS 2.3.9 is made for kernels up to 6.17: it may not compile for 6.99.0\n',
    );
  });

  it('is that fewer compilers fit into memory than were asked for', async () => {
    await play({ JOBS: 100_000 });
    const { exitCode, stdout } = await run('preflight');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^@ notice \d+ MiB of memory are free: \d+ at a time instead of 100000$/m);
  });
});
