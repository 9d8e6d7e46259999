import { readFile, readdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fileServer } from '../fakes/file-server.ts';
import { commitAll, gitDaemon } from '../support/git-daemon.ts';
import { ownHome } from '../support/home.ts';
import { tinyOpenZfs, tinyOpenZfsVersion } from '../support/tiny-openzfs.ts';
import { type Result } from '../support/zfsdev.ts';
import { answerOf, archive, common, expectFailure, KernelScene } from './kernel-scene.ts';

const zfsdev = ownHome();
let scene: KernelScene;
beforeEach(async () => {
  scene = await KernelScene.open(zfsdev);
});
afterEach(() => scene.close());

describe('a kernel built in a machine', () => {
  // One machine for all of it: each takes a while to boot under emulation.
  it('stays for a look when its disk runs full and when it is killed, goes on, and is gone at the end', async () => {
    const commit = commitAll(await scene.source({ unlucky: true }), { branch: 'main', tag: 'v6.99' });
    const daemon = await gitDaemon(scene.folder);
    // The host as its guest sees it.
    const url = `git://10.0.2.2:${daemon.port}/tiny`;
    const zfs = await scene.withOpenZfs(await tinyOpenZfs(scene.folder));
    const words = ['build-kernel', '--source', `${url}#v6.99`, '--output', scene.output, ...common, ...zfs];
    try {
      const full = await zfsdev(...words);
      expectFailure(full, /the kernel does not compile: the disk is full/, 3);
      expect(full.stderr).toContain('--resume');
    } finally {
      // What came from a network came at first.
      await daemon.close();
    }
    const [name = ''] = await scene.machines();
    expect(name).toMatch(/^kernel-build-/);
    expectFailure(await zfsdev(...words), /has an earlier build of this kernel/, 4);

    const build = zfsdev.begin(...words, '--resume', '--verbose');
    await build.until('cut off here');
    process.kill(Number(await readFile(join(zfsdev.home, 'instances', name, 'qemu.pid'), 'utf8')), 'SIGKILL');
    const killed = await build.result;
    expectFailure(killed, /lost|closed|ended/i);
    expect(killed.stderr).toContain(`zfsdev delete --force ${name}`);

    const answer = answerOf(await zfsdev(...words, '--resume', '--delete-after', '--json'));
    const built = { release: '6.99.0-test', source: `${url} ${commit}`, zfs: tinyOpenZfsVersion };
    expect(answer).toMatchObject({ ...built, usedAfterBytes: 0 });
    // What the machine wrote: its tools are part of the image.
    expect(answer['freedBytes']).toBeGreaterThan(2 ** 20);
    expect((await readdir(scene.output)).sort()).toEqual(['kernel-6.99.0-test.log', archive]);
    const modules = join(await scene.unpacked(), 'modules/6.99.0-test');
    expect(await readFile(join(modules, 'updates/zfs/zfs.ko'), 'latin1')).toContain('vermagic=6.99.0-test');
    expect(await scene.machines()).toEqual([]);
    expect(JSON.parse((await zfsdev('usage', '--json')).stdout)).toMatchObject({ machines: [] });
    expect(await scene.builds()).toEqual([]);
  });
});

describe('a build in a machine that is ended by others', () => {
  it('names the network that was lost, goes if it is told to, is not begun twice, and leaves nothing after Ctrl-C', async () => {
    const content = await readFile(scene.tarball(await scene.source({ endless: true })));
    const server = await fileServer({ content, cutAfter: 100 });
    try {
      // The host as its guest sees it.
      const url = server.url.replace('127.0.0.1', '10.0.2.2');
      const words = ['build-kernel', '--source', url, '--output', scene.output, ...common];
      const lost = await zfsdev(...words);
      expectFailure(lost, /10\.0\.2\.2\S+ can not be fetched: is there a network/);
      expect(lost.stderr).toContain('--resume');
      const [name = ''] = await scene.machines();
      expect(lost.stderr).toContain(`zfsdev delete --force ${name}`);
      await expectAsLargeAsItCanBe(name, lost);

      const gone = await zfsdev(...words, '--resume', '--delete-after=always');
      expectFailure(gone, /10\.0\.2\.2\S+ can not be fetched: is there a network/);
      const [log = '', ...more] = await readdir(scene.output);
      expect(gone.stderr).toContain(`the build is deleted, and its log kept: ${join(scene.output, log)}`);
      expect(gone.stderr).not.toContain(`zfsdev delete --force ${name}`);
      expect(more).toEqual([]);
      expect(await scene.machines()).toEqual([]);
      expect(await scene.builds()).toEqual([]);

      server.behave({ content });
      const build = zfsdev.begin(...words);
      await build.until('Compiling the kernel');
      expectFailure(
        await zfsdev(...words, '--resume'),
        /this very kernel is being changed by another zfsdev/,
        4,
      );
      build.kill('SIGINT');
      expect(await build.result).toMatchObject({ exitCode: 130 });
      expect(await scene.machines()).toEqual([]);
      expect(await scene.builds()).toEqual([]);
    } finally {
      await server.close();
    }
  });
});

/** The template asks for four processors, which not every host has. */
async function expectAsLargeAsItCanBe(name: string, { stderr }: Result): Promise<void> {
  const processors = availableParallelism();
  expect((await zfsdev('exec', name, '--', 'nproc')).stdout).toBe(String(Math.min(4, processors)));
  const told = new RegExp(`^this host has ${processors} processors?: the machine gets .* instead of 4$`, 'm');
  expect(told.test(stderr)).toBe(processors < 4);
}
