import { mkdir } from 'node:fs/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { ExpectedCall } from '../../fakes/programs.ts';
import { ScriptHouse, type Ended } from './support.ts';

let house: ScriptHouse;
beforeEach(async () => {
  house = await ScriptHouse.open();
  await mkdir(house.at('root/etc'), { recursive: true });
});
afterEach(() => house.close());

/** The mounts of every build, and a chroot that is entered with these variables. */
async function play(env: NonNullable<ExpectedCall['env']>, ...more: readonly ExpectedCall[]): Promise<void> {
  const root = house.at('root');
  const mounts: ExpectedCall[] = [
    { argv: ['--rbind', '/dev', `${root}/dev`] },
    { argv: ['-t', 'proc', 'proc', `${root}/proc`] },
    { argv: ['--bind', house.at('build'), `${root}/build`] },
    ...more,
  ];
  const chroot = [{ argv: [root, 'sh', '/build/provision/kernel-build.sh', 'make', '3'], env }];
  await house.play({ mount: { calls: mounts }, chroot: { calls: chroot } }, ['mkdir', 'cat', 'env']);
}

function enter(ccache: string, env: Readonly<Record<string, string>>): Promise<Ended> {
  const words = [house.at('root'), house.at('build'), ccache, 'make', '3'];
  const path = { 'PATH=/usr/sbin:/usr/bin:/sbin:/bin': 'PATH="$PATH"' };
  return house.run('kernel-enter.sh', words, env, path);
}

it("leaves the user's variables outside, but for the way to a network", async () => {
  const variables = { CROSS_COMPILE: 'arm-', KBUILD_OUTPUT: '/out', TMPDIR: '/my tmp', CCACHE_DIR: '/mine' };
  const proxies = { http_proxy: 'http://proxy:3128', NO_PROXY: 'a.example, b.example' };
  const none = Object.fromEntries(Object.keys(variables).map((name) => [name, undefined]));
  await play({
    ...none,
    ...proxies,
    https_proxy: undefined,
    HOME: '/root',
    DEBIAN_FRONTEND: 'noninteractive',
  });
  expect(await enter('-', { ...variables, ...proxies })).toEqual({ exitCode: 0, stdout: '', stderr: '' });
});

it("has the compiler's cache where there is one", async () => {
  const cache = house.at('cache');
  await play(
    { CCACHE_DIR: '/ccache', CCACHE_DEPEND: '1' },
    { argv: ['--bind', cache, house.at('root/ccache')] },
  );
  expect(await enter(cache, { CCACHE_DIR: '/mine' })).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  expect((await house.calls()).at(-1)).toMatch(/^chroot /);
});
