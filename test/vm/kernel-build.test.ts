import { readFile, readdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { call, callIn } from '../support/call.ts';
import { smallFilesystem } from '../support/filesystem.ts';
import { commitAll, gitDaemon } from '../support/git-daemon.ts';
import { ownHome } from '../support/home.ts';
import { machinesOf } from '../support/machines.ts';
import { tinyOpenZfs, tinyOpenZfsVersion } from '../support/tiny-openzfs.ts';
import { answerOf, archive, common, expectFailure, KernelScene, manifestOf } from './kernel-scene.ts';

const zfsdev = ownHome();
let scene: KernelScene;
beforeEach(async () => {
  scene = await KernelScene.open(zfsdev);
});
afterEach(() => scene.close());

function words(source: string, ...more: string[]): string[] {
  const fixed = ['--builder', 'chroot', '--source', source, '--output', scene.output];
  return ['build-kernel', ...fixed, ...common, ...more];
}

function sumOf(file: string): string {
  return call('sha256sum', file).slice(0, 64);
}

describe('a kernel built in a root file system', () => {
  it('comes out as one archive that is whole, and leaves nothing else', async () => {
    const answer = answerOf(await zfsdev(...words(await scene.source(), '--json')));
    expect(answer).toMatchObject({
      archive: join(scene.output, archive),
      release: '6.99.0-test',
      usedAfterBytes: 0,
    });
    expect(answer['freedBytes']).toBeGreaterThan(100 * 2 ** 20);
    expect((await readdir(scene.output)).sort()).toEqual(['kernel-6.99.0-test.log', archive]);
    expect(await scene.builds()).toEqual([]);
    const there = await scene.unpacked();
    callIn(there, 'sha256sum', '-c', '--strict', '--quiet', 'SHA256SUMS');
    expect(await manifestOf(there)).toMatchObject({
      release: '6.99.0-test',
      localversion: '-test',
      config: 'tinyconfig',
      zfs: '',
    });
    expect(await readFile(join(there, 'config'), 'utf8')).toContain('CONFIG_LOCALVERSION="-test"');
  });

  it('comes from a tarball with the right checksum, with the options of a fragment', async () => {
    const file = scene.tarball(await scene.source());
    const fragment = scene.at('more.config');
    await writeFile(fragment, 'CONFIG_OTHER=y\nCONFIG_NEEDS_OTHER=y\n');
    const result = await zfsdev(...words(file, '--sha256', sumOf(file), '--fragment', fragment));
    expect(result).toMatchObject({ exitCode: 0 });
    expect(call('tar', '--zstd', '-xOf', join(scene.output, archive), 'config')).toContain(
      'CONFIG_NEEDS_OTHER=y',
    );
  });

  it('has with it the OpenZFS that was compiled for it, from a tarball', async () => {
    const zfs = await tinyOpenZfs(scene.folder);
    const result = await zfsdev(...words(await scene.source(), ...(await scene.withOpenZfs(zfs))));
    expect(result).toMatchObject({ exitCode: 0 });
    expect(result.stdout).toContain(`is built, with OpenZFS ${tinyOpenZfsVersion}`);
    const there = await scene.unpacked();
    expect(await manifestOf(there)).toMatchObject({ zfs: tinyOpenZfsVersion, zfsSha256: sumOf(zfs) });
    const modules = join(there, 'modules/6.99.0-test');
    const module = await readFile(join(modules, 'updates/zfs/zfs.ko'));
    expect(module.includes('vermagic=6.99.0-test')).toBe(true);
    // It is stripped.
    expect(module.includes('.symtab')).toBe(true);
    expect(module.includes('.debug_info')).toBe(false);
    const needs = await readFile(join(modules, 'modules.dep'), 'utf8');
    expect(needs).toContain('updates/zfs/zfs.ko: updates/zfs/spl.ko\n');
  });

  it('has nothing to go on with if there was no build', async () => {
    expectFailure(await zfsdev(...words(await scene.source(), '--resume')), /no build of this kernel/, 4);
  });
});

describe('a build that fails', () => {
  it('for a wrong checksum makes nothing', async () => {
    const file = scene.tarball(await scene.source());
    expectFailure(await zfsdev(...words(file, '--sha256', 'a'.repeat(64))), /checksum .* is wrong/);
    expect(await scene.builds()).toEqual([]);
  });

  it('for a tarball that was cut off says so', async () => {
    const file = scene.tarball(await scene.source());
    await truncate(file, 600);
    expectFailure(await zfsdev(...words(file)), /damaged, or not all of it is there: .*tiny\.tar\.gz/);
  });

  it("for OpenZFS's tarball, cut off or none, names it before anything is compiled", async () => {
    const path = await scene.source();
    const other = scene.tarball(path);
    const none = await zfsdev(...words(path, ...(await scene.withOpenZfs(other))));
    expectFailure(none, /not the source of a release of OpenZFS, it has no META: \S+tiny\.tar\.gz/);
    const zfs = await tinyOpenZfs(scene.folder);
    await truncate(zfs, 200);
    const cut = await zfsdev(...words(path, ...(await scene.withOpenZfs(zfs))));
    expectFailure(cut, /damaged, or not all of it is there: \S+zfs-2\.99\.0\.tar\.gz/);
    expect(cut.stderr).toContain('begin anew: the same command');
    for (const id of await scene.builds())
      expect(await readFile(scene.ofBuild(id, 'build.log'), 'utf8')).not.toMatch(/^ {2}CC /m);
  });

  it("for OpenZFS that does not compile shows the compiler's words", async () => {
    const zfs = await tinyOpenZfs(scene.folder, { broken: true });
    const result = await zfsdev(...words(await scene.source(), ...(await scene.withOpenZfs(zfs))));
    expectFailure(result, /OpenZFS 2\.99\.0 does not compile for this kernel/);
    expect(result.stderr).toContain('error: ‘missing’ undeclared');
    expect(result.stderr).toContain('the whole log: ');
  });

  it('for a source that is no kernel names what it lacks', async () => {
    expectFailure(
      await zfsdev(...words(await scene.source({ noKernel: true }))),
      /not the source of a kernel.*Kconfig/,
    );
  });

  it('for options that do not survive names each, with the reason', async () => {
    const fragment = scene.at('bad.config');
    await writeFile(fragment, 'CONFIG_NEEDS_OTHER=y\nCONFIG_NO_SUCH_THING=y\n');
    const result = await zfsdev(...words(await scene.source(), '--fragment', fragment));
    expectFailure(result, /CONFIG_NEEDS_OTHER \(asked for y, and it is n/);
    expect(result.stderr).toMatch(/CONFIG_NO_SUCH_THING \(this kernel knows no such option/);
  });

  it('for a fragment with a line that is no option shows the line', async () => {
    const fragment = scene.at('bad.config');
    await writeFile(fragment, 'OTHER=y\n');
    expectFailure(await zfsdev(...words(await scene.source(), '--fragment', fragment)), /no option: OTHER=y/);
  });

  it("for the compiler shows the compiler's words and the whole log's file", async () => {
    const result = await zfsdev(...words(await scene.source({ broken: true })));
    expectFailure(result, /the kernel does not compile/);
    expect(result.stderr).toContain('error: ‘missing’ undeclared');
    const log = /the whole log: (\S+)/.exec(result.stderr)?.[1] ?? '';
    expect(await readFile(log, 'utf8')).toContain('kernel/three.c');
    expect(result.stderr).toContain('--resume');
  });

  it('for an address that nobody answers at says that the network may be gone', async () => {
    const result = await zfsdev(...words('http://127.0.0.1:9/linux.tar.xz'));
    expectFailure(result, /http:\/\/127\.0\.0\.1:9\/linux\.tar\.xz can not be fetched: is there a network/);
  });

  it('for a ref that is not there names the ref', async () => {
    const commit = commitAll(await scene.source(), { branch: 'main', tag: 'v6.99' });
    const daemon = await gitDaemon(scene.folder);
    try {
      const url = `git://127.0.0.1:${daemon.port}/tiny`;
      expectFailure(await zfsdev(...words(`${url}#v9.9`)), /git can not fetch v9\.9 from/);
      expect(await zfsdev(...words(`${url}#main`))).toMatchObject({ exitCode: 0 });
      expect(await manifestOf(await scene.unpacked())).toMatchObject({ source: `${url} ${commit}` });
    } finally {
      await daemon.close();
    }
  });

  it('for a full disk where the archive goes keeps what is built, for --resume', async () => {
    const small = await smallFilesystem(16 * 2 ** 20, join(zfsdev.home, 'images'));
    const path = await scene.source();
    try {
      await small.fillUpTo(0);
      const target = scene.output;
      scene.output = small.home;
      expectFailure(await zfsdev(...words(path)), /can't be written.*ENOSPC|no space left/i, 3);
      expect((await readdir(small.home)).filter((name) => name.includes('kernel'))).toEqual([]);
      scene.output = target;
    } finally {
      await small.remove();
    }
    expect(await zfsdev(...words(path, '--resume'))).toMatchObject({ exitCode: 0 });
    const log = await readFile(join(scene.output, 'kernel-6.99.0-test.log'), 'utf8');
    expect(log.match(/CC {6}kernel\/one\.o/g)).toHaveLength(1);
  });

  it('for an output that is no folder makes nothing', async () => {
    await writeFile(scene.output, 'a file where a folder is wanted');
    expectFailure(await zfsdev(...words(await scene.source())), /the archive can't go to .*output/);
    expect(await scene.builds()).toEqual([]);
  });
});

describe('a build that is ended', () => {
  it('by Ctrl-C leaves nothing, and exits 130', async () => {
    const build = zfsdev.begin(...words(await scene.source({ endless: true })));
    await build.until('Compiling the kernel');
    build.kill('SIGINT');
    const { stderr, exitCode } = await build.result;
    expect(stderr).toMatch(/^error: the build was interrupted: Compiling the kernel$/m);
    expect(exitCode).toBe(130);
    expect(await scene.builds()).toEqual([]);
    expect(await machinesOf(scene.folder)).toEqual([]);
  });

  it('by kill -9 leaves no process, and can go on', async () => {
    const build = zfsdev.begin(...words(await scene.source({ endless: true })));
    await build.until('Compiling the kernel');
    build.kill('SIGKILL');
    await build.result;
    const [id = ''] = await scene.builds();
    await expect.poll(() => machinesOf(scene.ofBuild(id)), { timeout: 10_000 }).toEqual([]);
    const again = zfsdev.begin(...words(scene.at('tiny'), '--resume'));
    await again.until('Compiling the kernel');
    again.kill('SIGINT');
    expect((await again.result).exitCode).toBe(130);
  });

  it('is not begun twice at once', async () => {
    const path = await scene.source({ endless: true });
    const first = zfsdev.begin(...words(path));
    await first.until('Compiling the kernel');
    expectFailure(await zfsdev(...words(path)), /this very kernel is being changed by another zfsdev/, 4);
    first.kill('SIGINT');
    await first.result;
  });
});
