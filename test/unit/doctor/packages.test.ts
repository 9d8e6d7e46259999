import { describe, expect, it } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { isStale, progressIn } from '../../../src/doctor/install.ts';
import { aptInstall, packagesFor, typedInstall } from '../../../src/doctor/packages.ts';
import { isAtLeast, versionIn } from '../../../src/core/version.ts';

describe('packages', () => {
  it('are listed once each and sorted', () => {
    expect(packagesFor(['ssh', 'scp', 'qemu-img', 'debian-archive-keyring'], 'apt')).toEqual([
      'debian-archive-keyring',
      'openssh-client',
      'qemu-utils',
    ]);
  });

  it('are those of the platform, and none where no way to install is known', () => {
    expect(packagesFor(['qemu-img', 'limactl', 'mmdebstrap'], 'brew')).toEqual(['lima', 'qemu']);
    expect(packagesFor(['qemu-img'], undefined)).toEqual([]);
  });

  it('are typed with sudo by an ordinary user only', () => {
    const install = (uid: number) =>
      typedInstall(['qemu-utils'], { manager: 'apt', user: { uid, name: 'u' } });
    expect(install(0)).toBe('apt-get install --no-install-recommends qemu-utils');
    expect(install(1000)).toBe('sudo apt-get install --no-install-recommends qemu-utils');
  });

  it('are installed without questions', () => {
    expect(aptInstall(['a', 'b']).join(' ')).toBe(
      'env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends a b',
    );
  });
});

describe('what apt-get and brew say', () => {
  it.each([
    [
      'Get:3 http://mirror.example/debian trixie/main amd64 qemu-utils amd64 1:10.0.2+ds-2 [2,115 kB]',
      'fetch qemu-utils (2,115 kB)',
    ],
    ['Unpacking qemu-utils (1:10.0.2+ds-2) ...', 'unpacking qemu-utils'],
    ['Setting up libfdt1:amd64 (1.7.2-2) ...', 'setting up libfdt1'],
    [
      '==> Pouring qemu--10.0.2.arm64_sequoia.bottle.tar.gz',
      'Pouring qemu--10.0.2.arm64_sequoia.bottle.tar.gz',
    ],
    ['Reading package lists...', undefined],
  ])('%s', (line, expected) => {
    expect(progressIn(line)).toBe(expected);
  });

  it('calls for new lists only where new lists help', () => {
    const failed = (detail: string) => new Failure('process', 'apt-get failed', { detail });
    expect(isStale(failed('E: Unable to locate package mmdebstrap'))).toBe(true);
    expect(isStale(failed('E: Failed to fetch http://x/y.deb  404  Not Found [IP: 1.2.3.4 80]'))).toBe(true);
    expect(isStale(failed('E: dpkg was interrupted'))).toBe(false);
    expect(isStale(new Failure('deadline', 'Unable to locate package'))).toBe(false);
  });
});

describe('versions', () => {
  it('are found in the words of programs', () => {
    expect(versionIn('QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)')).toBe('7.2.22');
    expect(versionIn('OpenSSH_9.2p1 Debian-2+deb12u7, OpenSSL 3.0.17')).toBe('9.2');
    expect(versionIn('nothing')).toBeUndefined();
  });

  it.each([
    ['20.19.0', '20.19', true],
    ['20.18.9', '20.19', false],
    ['22.0.0', '20.19', true],
    ['20', '20.0', true],
  ])('%s >= %s: %s', (version, floor, expected) => {
    expect(isAtLeast(version, floor)).toBe(expected);
  });
});
