import { afterEach, describe, expect, it } from 'vitest';
import type { CheckResult } from '../../../src/doctor/check.ts';
import { allChecks, allThere, examine, mendableChecks } from '../../../src/doctor/checks.ts';
import { lookAtHost } from '../../../src/doctor/host.ts';
import { debian, present, qemuPackage, scene, without, type Scene, type SceneOptions } from './support.ts';

let here: Scene;

afterEach(async () => {
  await here.fakes.verify();
  await here.remove();
});

async function results(options: SceneOptions, ids?: readonly string[]): Promise<Map<string, CheckResult>> {
  here = await scene(options);
  const checks = ids ? allChecks.filter(({ id }) => ids.includes(id)) : mendableChecks;
  const found = await examine(await lookAtHost(here.ctx, here.host), checks);
  return new Map(found.map((result) => [result.id, result]));
}

describe('programs', () => {
  it('are told with their versions', async () => {
    const found = await results({ programs: present });
    expect(
      Object.fromEntries([...found].map(([id, result]) => [id, `${result.status} ${result.found}`])),
    ).toEqual({
      qemu: 'ok 7.2.22',
      'qemu-img': 'ok 7.2.22',
      ssh: 'ok 9.2',
      mmdebstrap: 'ok 1.3.5',
      mke2fs: 'ok 1.47.0',
      zstd: 'ok 1.5.4',
      keyring: 'ok Debian 13 and before',
      uefi: 'weak not installed (optional)',
      limactl: 'ok 2.2.0',
    });
  });

  it('are missing on a fresh host, with the commands that install them', async () => {
    const files = { 'etc/os-release': 'ID=ubuntu\nID_LIKE=debian\n' };
    const found = await results({ programs: { 'apt-get': { calls: [] } }, files, uid: 1000 });
    const install = (name: string): string => `sudo apt-get install --no-install-recommends ${name}`;
    expect(
      Object.fromEntries([...found].map(([id, result]) => [id, [result.status, result.fix?.[0]]])),
    ).toEqual({
      qemu: ['missing', install(qemuPackage)],
      'qemu-img': ['missing', install('qemu-utils')],
      ssh: ['missing', install('openssh-client')],
      mmdebstrap: ['missing', install('mmdebstrap')],
      mke2fs: ['missing', install('e2fsprogs')],
      zstd: ['weak', install('zstd')],
      keyring: ['missing', install('debian-archive-keyring')],
      uidmap: ['missing', install('uidmap')],
      'subordinate-ids': [
        'missing',
        'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ada',
      ],
      uefi: ['weak', install(process.arch === 'arm64' ? 'qemu-efi-aarch64' : 'ovmf')],
      limactl: ['weak', undefined],
    });
  });

  it('count a firmware as there by its descriptor and its files', async () => {
    const target =
      process.arch === 'arm64'
        ? { architecture: 'aarch64', machines: ['virt-*'] }
        : { architecture: 'x86_64', machines: ['pc-q35-*'] };
    const descriptor = {
      'interface-types': ['uefi'],
      mapping: { device: 'flash', executable: { filename: '/usr/share/f/CODE.fd', format: 'raw' } },
      targets: [target],
      features: [],
    };
    const described = { ...debian, 'usr/share/qemu/firmware/60.json': JSON.stringify(descriptor) };
    const without = await results({ programs: present, files: described }, ['uefi']);
    expect(without.get('uefi')?.status).toBe('weak');
    await here.remove();
    const files = { ...described, 'usr/share/f/CODE.fd': '' };
    const found = await results({ programs: present, files }, ['uefi']);
    expect(found.get('uefi')).toMatchObject({ status: 'ok', found: '/usr/share/f/CODE.fd' });
  });

  it("may lie in /usr/sbin, off an ordinary user's PATH", async () => {
    const files = { ...debian, 'usr/sbin/mke2fs': '#!/bin/sh\necho "mke2fs 1.47.2 (1-Jan-2025)" >&2\n' };
    const found = await results({ programs: without('mke2fs'), files, uid: 1000 }, ['mke2fs']);
    expect(found.get('mke2fs')).toMatchObject({ status: 'ok', found: '1.47.2' });
  });

  it('that are there and fail are not taken for working ones', async () => {
    const broken = {
      calls: [{ argv: ['--version'], exitCode: 127, stderr: 'error while loading shared libraries\n' }],
    };
    const found = await results({ programs: { ...present, 'qemu-img': broken } }, ['qemu-img']);
    expect(found.get('qemu-img')).toMatchObject({
      status: 'missing',
      found: expect.stringContaining('qemu-img failed with exit code 127') as string,
      note: 'error while loading shared libraries',
    });
    expect(allThere([...found.values()])).toBe(false);
  });

  it('get no command on a distribution whose packages are not known', async () => {
    const files = { ...debian, 'etc/os-release': 'ID=fedora\n' };
    const found = await results({ programs: without('qemu-img'), files }, ['qemu-img']);
    expect(found.get('qemu-img')).toMatchObject({ status: 'missing', note: 'install it yourself: qemu-img' });
    expect(found.get('qemu-img')?.fix).toBeUndefined();
  });
});

describe("Debian's keys", () => {
  const keyring = 'usr/share/keyrings/debian-archive-keyring.gpg';

  it('of Debian 12 alone are weak', async () => {
    const found = await results({ programs: {}, files: { [keyring]: '' } }, ['keyring']);
    expect(found.get('keyring')).toMatchObject({ status: 'weak', found: 'older than Debian 13' });
  });

  it('are told by the file that builds use', async () => {
    const files = { 'usr/share/keyrings/debian-archive-trixie-automatic.gpg': '' };
    const found = await results({ programs: {}, files }, ['keyring']);
    expect(found.get('keyring')).toMatchObject({ status: 'missing' });
  });
});

describe('unprivileged builds', () => {
  const unshare = (exitCode: number) => ({
    unshare: { calls: [{ argv: ['--user', '--map-root-user', 'true'], exitCode }] },
  });
  const namespaces = async (exitCode: number, files: Readonly<Record<string, string>>) =>
    (await results({ programs: unshare(exitCode), files, uid: 1000 }, ['user-namespaces'])).get(
      'user-namespaces',
    );

  it('are no matter to root', async () => {
    const found = await results({ programs: {} }, ['uidmap', 'subordinate-ids', 'user-namespaces']);
    expect(found.size).toBe(0);
  });

  it('need namespaces that work, whatever the settings say', async () => {
    const off = { 'proc/sys/kernel/unprivileged_userns_clone': '0\n' };
    expect(await namespaces(0, off)).toMatchObject({ status: 'ok' });
  });

  it.each([
    ['kernel/unprivileged_userns_clone', '0', 'kernel.unprivileged_userns_clone=1'],
    ['user/max_user_namespaces', '0', 'user.max_user_namespaces=15000'],
    ['kernel/apparmor_restrict_unprivileged_userns', '1', 'kernel.apparmor_restrict_unprivileged_userns=0'],
  ])('tell the setting %s that forbids them', async (file, value, setting) => {
    const found = await namespaces(1, { [`proc/sys/${file}`]: `${value}\n` });
    expect(found).toMatchObject({ status: 'weak', fix: [`sudo sysctl -w ${setting}`] });
  });

  it("are let through by mmdebstrap's own AppArmor profile", async () => {
    const files = {
      'proc/sys/kernel/apparmor_restrict_unprivileged_userns': '1\n',
      'etc/apparmor.d/mmdebstrap': 'profile\n',
    };
    expect(await namespaces(1, files)).toMatchObject({ status: 'ok' });
  });
});

describe('the accelerator', () => {
  const look = async (options: SceneOptions) => (await results(options, ['accelerator'])).get('accelerator');

  it('is not tried without QEMU', async () => {
    expect(await look({ programs: {} })).toMatchObject({
      status: 'weak',
      found: 'not tried, since QEMU is missing',
    });
  });

  it('is emulation where there is no /dev/kvm', async () => {
    const found = await look({ programs: present });
    expect(found).toMatchObject({ status: 'weak', found: 'tcg (emulation, slower)' });
    expect(found?.note).toContain('dev/kvm');
    expect(found?.fix).toBeUndefined();
  });
});

describe('the state home', () => {
  it('is tried by writing, and nothing of that stays', async () => {
    const found = await results({ programs: {} }, ['home']);
    expect(found.get('home')).toMatchObject({ status: 'ok', found: here.ctx.paths.home });
  });
});
