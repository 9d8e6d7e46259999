import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FakeProgram } from '../../fakes/programs.ts';
import { KernelHouse, none, tree } from './kernel-house.ts';

let place: KernelHouse;
beforeEach(async () => {
  place = await KernelHouse.open();
});
afterEach(() => place.close());

describe('a phase that can not be done', () => {
  async function refused(phase: string, words: RegExp): Promise<string> {
    const { exitCode, stdout } = await place.run(phase);
    expect(stdout).toMatch(words);
    expect(exitCode).toBe(1);
    expect(place.has(`done/${phase}`)).toBe(false);
    return stdout;
  }

  it('for a program that the last of them needs is refused by the first', async () => {
    await place.play({}, { depmod: { calls: [], absent: true }, zstd: { calls: [], absent: true } });
    await refused('preflight', /^! programs that a build needs are missing here: depmod zstd$/m);
  });

  it('for want of room is refused by the first', async () => {
    await place.play({ NEEDED_KIB: 2 ** 50 });
    await refused('preflight', /^! not enough space to build in: \d+ MiB are free, \d+ MiB are needed$/m);
  });

  it('while an earlier run is at work there is refused', async () => {
    await place.play({}, { flock: { calls: [{ argv: ['-w', '60', '9'], exitCode: 1 }] } });
    await refused('preflight', /^! an earlier run of this build is still at work/m);
  });

  it('for a wrong checksum of what was fetched names both, and keeps nothing of it', async () => {
    const fetched = place.path('fetch/source');
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
    await place.play({ SOURCE_KIND: 'url', SOURCE: url, SOURCE_SHA256: 'a'.repeat(64) }, { curl });
    await refused('source', /^! the checksum of http:\S+ is wrong: [0-9a-f]{64} instead of a{64}$/m);
    expect(place.has('fetch')).toBe(false);
  });

  it('for a server that falls silent says that the network may be gone', async () => {
    const url = 'http://a.example/linux.tar.xz';
    const words = Array.from({ length: 16 }, () => /./);
    const curl: FakeProgram = {
      calls: [{ argv: words, stderr: 'curl: (28) Operation too slow\n', exitCode: 28 }],
    };
    await place.play({ SOURCE_KIND: 'url', SOURCE: url }, { curl });
    await refused('source', /can not be fetched: is there a network/);
  });

  it('for a ref that is not there names it, and asks nobody for a password', async () => {
    const url = 'https://a.example/linux.git';
    const low = ['-c', 'http.lowSpeedLimit=1000', '-c', 'http.lowSpeedTime=120'];
    const git: FakeProgram = {
      calls: [
        { argv: ['init', '-q', place.path('src.part')] },
        {
          argv: ['-C', place.path('src.part'), ...low, 'fetch', '-q', '--depth', '1', '--', url, 'v9.9'],
          env: { GIT_TERMINAL_PROMPT: '0' },
          exitCode: 128,
        },
      ],
    };
    await place.play({ SOURCE_KIND: 'git', SOURCE: url, SOURCE_REF: 'v9.9' }, { git });
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
    await place.play({ SOURCE_KIND: 'debian' }, fakes);
    await refused('source', /^! the package linux-source-6\.99 can not be fetched: is there a network\?$/m);
    const verbs = (await place.house.calls()).map((call) => /(update|download)/.exec(call)?.[0]);
    expect(verbs.filter(Boolean)).toEqual(['update', 'download', 'update', 'download']);
  });

  it('for OpenZFS that is none is refused before anything is compiled', async () => {
    await place.archive('in/source.tar', tree);
    await place.archive('in/zfs.tar', { 'README.md': '' });
    await place.play({ ZFS: 'archive', ZFS_NAME: '/there/zfs.tar' });
    await refused(
      'source',
      /^! this is not the source of a release of OpenZFS, it has no META: \/there\/zfs\.tar$/m,
    );
  });

  it('for OpenZFS that was cut off names its file', async () => {
    await place.archive('in/source.tar', tree);
    await place.put({ 'in/zfs.tar': 'half of it' });
    await place.play({ ZFS: 'archive', ZFS_NAME: '/there/zfs.tar' });
    await refused('source', /^! the archive is damaged, or not all of it is there: \/there\/zfs\.tar$/m);
  });

  it.each([
    ['SYSTEM_TRUSTED_KEYS', 'debian/certs/debian-uefi-certs.pem'],
    ['SYSTEM_REVOCATION_KEYS', '/nowhere/revoked.pem'],
  ])("for a distribution's own configuration names the file that only it has: %s", async (name, file) => {
    await place.put({
      'src/Kconfig': '',
      'in/config': `CONFIG_LOCALVERSION="-test"\nCONFIG_${name}="${file}"\n`,
    });
    await place.play({ CONFIG: 'file' });
    const words = `! CONFIG_${name} names a file that this source does not have: ${file}\n`;
    expect(await refused('config', /^! CONFIG_/m)).toContain(words);
  });

  it('takes a configuration whose keys are there, or are none, or are made by make', async () => {
    const options = ['SYSTEM_TRUSTED_KEYS="certs/mine.pem"', 'SYSTEM_REVOCATION_KEYS=""'];
    const made = 'SYSTEM_BLACKLIST_HASH_LIST="certs/signing_key.x509"';
    const lines = ['LOCALVERSION="-test"', ...options, made].map((line) => `CONFIG_${line}\n`);
    await place.put({ 'src/Kconfig': '', 'src/certs/mine.pem': '', 'in/config': lines.join('') });
    await place.play({ CONFIG: 'file' });
    expect(await place.run('config')).toMatchObject({ exitCode: 0, stderr: '' });
  });

  it('for OpenZFS without modules is refused before anything is compiled', async () => {
    const make = place.programs()['make']?.calls.filter(({ argv }) => !argv.includes('tinyconfig')) ?? [];
    const tiny = place.kernel(
      ['-j', '1', 'tinyconfig'],
      place.leaves({ 'src/.config': 'CONFIG_LOCALVERSION="-test"\n' }),
    );
    await place.put({ 'src/Kconfig': '' });
    await place.play({ ZFS: 'debian' }, { make: { calls: [...make, tiny] } });
    await refused('config', /CONFIG_MODULES is not set$/m);
  });
});

describe('what is told before it is too late', () => {
  it('is that OpenZFS is older than the kernel', async () => {
    await place.archive('in/source.tar', tree);
    await place.archive('in/zfs.tar', { META: 'Version: 2.3.9\nLinux-Maximum: 6.17\n', configure: '' });
    await place.play({ ZFS: 'archive' });
    const { stdout } = await place.run('source');
    expect(stdout).toContain(
      '@ notice OpenZFS 2.3.9 is made for kernels up to 6.17: it may not compile for 6.99.0\n',
    );
  });

  it('is that fewer compilers fit into memory than were asked for', async () => {
    await place.play({ JOBS: 100_000 });
    const { exitCode, stdout } = await place.run('preflight');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^@ notice \d+ MiB of memory are free: \d+ at a time instead of 100000$/m);
  });
});
