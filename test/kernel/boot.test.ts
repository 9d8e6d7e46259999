import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ownHome } from '../support/home.ts';

const zfsdev = ownHome();
let output: string;

beforeAll(async () => {
  output = await mkdtemp(join(tmpdir(), 'zfsdev-kernel-'));
});

afterAll(() => rm(output, { recursive: true, force: true }));

it("a kernel and OpenZFS from Debian's sources boot, and the pool is ONLINE", async () => {
  const words = ['--builder', 'chroot', '--source', 'debian', '--config', 'tinyconfig', '--zfs', 'debian'];
  const build = await zfsdev('build-kernel', ...words, '--localversion', '-proof', '--output', output);
  expect(build).toMatchObject({ exitCode: 0 });
  expect((await readdir(join(zfsdev.home, 'builds'))).filter((name) => name !== '.ccache')).toEqual([]);
  const archive = (await readdir(output)).find((name) => name.endsWith('.tar.zst')) ?? '';
  const up = await zfsdev('up', 'zfs-test', '--name', 'proof', '--kernel', join(output, archive));
  expect(up).toMatchObject({ exitCode: 0 });
  expect((await zfsdev('exec', 'proof', '--', 'uname', '-r')).stdout).toMatch(/-proof$/);
  expect((await zfsdev('exec', 'proof', '--', 'zpool', 'status', 'testpool')).stdout).toContain(
    'state: ONLINE',
  );
  const release = (await zfsdev('exec', 'proof', '--', 'modinfo', '-F', 'vermagic', 'zfs')).stdout;
  expect(release).toContain('-proof');
  // What an instance boots stays.
  expect(await zfsdev('kernel', 'remove', archive.replace(/^kernel-|\.tar\.zst$/g, ''))).toMatchObject({
    exitCode: 4,
  });
  // It boots the same one when it is started again.
  expect(await zfsdev('restart', 'proof')).toMatchObject({ exitCode: 0 });
  expect((await zfsdev('exec', 'proof', '--', 'uname', '-r')).stdout).toMatch(/-proof$/);
  expect(await zfsdev('delete', '--force', 'proof')).toMatchObject({ exitCode: 0 });
  expect(await zfsdev('kernel', 'remove', archive.replace(/^kernel-|\.tar\.zst$/g, ''))).toMatchObject({
    exitCode: 0,
  });
});

it('a kernel is built in a machine, which is gone afterwards', async () => {
  const words = ['--source', 'debian', '--config', 'tinyconfig', '--zfs', 'none', '--localversion', '-vm'];
  const build = await zfsdev('build-kernel', ...words, '--output', output, '--delete-after', '--json');
  expect(build).toMatchObject({ exitCode: 0 });
  const answer = JSON.parse(build.stdout.split('\n').at(-1) ?? '') as Record<string, unknown>;
  expect(answer['usedAfterBytes']).toBe(0);
  expect(answer['peakBytes']).toBeLessThan(3 * 10 ** 9);
  const { stdout } = await zfsdev('list', '--json');
  expect(JSON.parse(stdout)).toMatchObject({ instances: [] });
});
