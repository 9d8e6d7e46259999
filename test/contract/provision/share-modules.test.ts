import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ExpectedCall } from '../../fakes/programs.ts';
import { provision, ScriptHouse, type Ended } from './support.ts';

const kernel = '6.12.0-test';
const packageVersion = '6.12.1-1';
let house: ScriptHouse;

beforeEach(async () => {
  house = await ScriptHouse.open();
  await configure('NETFS_SUPPORT', 'FUSE_FS', 'VIRTIO_FS');
  await put('usr/src/linux-source-6.12.tar.xz');
});
afterEach(() => house.close());

async function put(path: string, text = ''): Promise<void> {
  await mkdir(dirname(house.at('root', path)), { recursive: true });
  await writeFile(house.at('root', path), text);
}

const configure = (...options: readonly string[]): Promise<void> =>
  put(`boot/config-${kernel}`, options.map((option) => `CONFIG_${option}=y\n`).join(''));

/** A call into the root. */
const inRoot = (...argv: readonly string[]): string[] => [house.at('root'), ...argv];
const asks = (module: string, isThere: boolean): ExpectedCall => ({
  argv: inRoot('modprobe', '--set-version', kernel, '--show-depends', module),
  exitCode: isThere ? 0 : 1,
  ...(isThere ? {} : { times: 1 }),
});
const version = (name: string, is = packageVersion): ExpectedCall => ({
  argv: inRoot('dpkg-query', '-W', '-f', '${Version}', name),
  stdout: is,
});
const versions = (): ExpectedCall[] => [version('linux-source-6.12'), version(`linux-image-${kernel}`)];
const unpacks = (...folders: readonly string[]): ExpectedCall => ({
  argv: inRoot(
    ...['env', 'XZ_DEFAULTS=-T0', 'tar', '-C', '/zfsdev-source', '--strip-components=1', '-xJf'],
    '/usr/src/linux-source-6.12.tar.xz',
    ...folders.map((folder) => `linux-source-6.12/${folder}`),
  ),
  times: 1,
});
const makes = (options: readonly string[], ...leaves: readonly string[]): ExpectedCall => ({
  argv: inRoot(
    ...['make', '-C', `/lib/modules/${kernel}/build`, 'M=/zfsdev-source', '-j2'],
    ...options.map((option) => `CONFIG_${option}=m`),
    'modules',
  ),
  leaves: Object.fromEntries(leaves.map((path) => [house.at('root/zfsdev-source', path), 'module'])),
  times: 1,
});
const strips = (name: string): ExpectedCall => ({
  argv: inRoot('strip', '--strip-debug', `/lib/modules/${kernel}/updates/zfsdev/${name}`),
});
const depmod = (): ExpectedCall => ({ argv: inRoot('depmod', kernel) });

/** Compiles with a chroot that answers so, and tells what the kernel mounts then. */
async function compile(...calls: readonly ExpectedCall[]): Promise<Ended> {
  await house.play({ chroot: { calls }, nproc: { calls: [{ argv: [], stdout: '2\n' }] } }, [
    'chmod',
    'find',
    'grep',
    'mkdir',
    'mv',
    'rm',
  ]);
  const text = `set -eu
root=${house.at('root')} kernel=${kernel}
modules=$root/lib/modules/$kernel
die() { echo "kernel-hook: $*" >&2; exit 1; }
version_of() { chroot "$root" dpkg-query -W -f "\\\${Version}" "$1"; }
depmod_in_root() { chroot "$root" depmod "$kernel"; }
${await readFile(join(provision, 'image/share-modules.sh'), 'utf8')}
compile_share_modules
share_types
`;
  return house.runText('hook.sh', text);
}

const nine = ['NET_9P', 'NET_9P_VIRTIO', '9P_FS'];
const nineModules = ['net/9p/9pnet.ko', 'net/9p/9pnet_virtio.ko', 'fs/9p/9p.ko'];
const nineNames = ['9p.ko', '9pnet.ko', '9pnet_virtio.ko'];

describe('the modules for shares', () => {
  it('of 9p are compiled where the kernel has the rest', async () => {
    const ended = await compile(
      asks('9p', false),
      asks('virtiofs', true),
      ...versions(),
      unpacks('net/9p', 'fs/9p'),
      makes(nine, ...nineModules),
      ...nineNames.map(strips),
      depmod(),
      asks('9p', true),
      asks('9pnet_virtio', true),
    );
    expect(ended).toEqual({ exitCode: 0, stdout: '9p virtiofs', stderr: '' });
    expect(await readdir(house.at('root/lib/modules', kernel, 'updates/zfsdev'))).toEqual(nineNames);
    expect(existsSync(house.at('root/zfsdev-source'))).toBe(false);
  });

  it('come with those they stand on, where those are missing too', async () => {
    await configure('INET');
    const ended = await compile(
      asks('9p', false),
      asks('virtiofs', false),
      ...versions(),
      unpacks('fs/netfs', 'net/9p', 'fs/9p', 'fs/fuse'),
      makes(['NETFS_SUPPORT', ...nine, 'FUSE_FS', 'VIRTIO_FS'], ...nineModules, 'fs/fuse/virtiofs.ko'),
      ...[...nineNames, 'virtiofs.ko'].map(strips),
      depmod(),
      ...['9p', '9pnet_virtio', 'virtiofs'].map((name) => asks(name, true)),
    );
    expect(ended).toEqual({ exitCode: 0, stdout: '9p virtiofs', stderr: '' });
  });

  it('are left alone where the kernel has them all', async () => {
    const ended = await compile(...['9p', '9pnet_virtio', 'virtiofs'].map((name) => asks(name, true)));
    expect(ended).toEqual({ exitCode: 0, stdout: '9p virtiofs', stderr: '' });
  });

  it('are left out, and so it is said, where the source is of another version than the kernel', async () => {
    const ended = await compile(
      { ...asks('9p', false), times: 2 },
      asks('virtiofs', true),
      version('linux-source-6.12', '6.12.2-1'),
      version(`linux-image-${kernel}`),
    );
    expect(ended).toMatchObject({ exitCode: 0, stdout: 'virtiofs' });
    expect(ended.stderr).toContain(`linux-source-6.12 is 6.12.2-1, not the source of linux-image-${kernel}`);
  });

  it("fail the build with the compiler's words", async () => {
    const ended = await compile(
      asks('9p', false),
      asks('virtiofs', true),
      ...versions(),
      unpacks('net/9p', 'fs/9p'),
      { ...makes(nine), exitCode: 2, stderr: 'error: no such member\n' },
    );
    expect(ended.exitCode).toBe(1);
    expect(ended.stderr).toContain('error: no such member');
    expect(ended.stderr).toContain(`the modules for shares were not compiled for ${kernel}`);
  });

  it('fail the build where the source has no such folder', async () => {
    const ended = await compile(asks('9p', false), asks('virtiofs', true), ...versions(), {
      ...unpacks('net/9p', 'fs/9p'),
      exitCode: 2,
    });
    expect(ended).toMatchObject({
      exitCode: 1,
      stderr: "kernel-hook: the kernel's source lacks something of:  net/9p fs/9p\n",
    });
  });
});
