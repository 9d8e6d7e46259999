import { stat, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ExpectedCall } from '../../fakes/programs.ts';
import { ScriptHouse, type Ended } from './support.ts';

let house: ScriptHouse;
beforeEach(async () => {
  house = await ScriptHouse.open();
});
afterEach(() => house.close());

const nine = 'trans=virtio,version=9p2000.L,msize=512000';

/** What the guest's kernel answers; a mount point counts as one if it is among `mounted`. */
async function play(
  guest: {
    readonly mounted?: readonly string[];
    readonly modprobe?: readonly ExpectedCall[];
    readonly mount?: readonly ExpectedCall[];
    readonly umount?: readonly ExpectedCall[];
  } = {},
): Promise<void> {
  const modules = [{ argv: ['-a', '9p', '9pnet_virtio'] }, { argv: ['-a', 'virtiofs'] }];
  await house.play(
    {
      mountpoint: {
        calls: [
          ...(guest.mounted ?? []).map((point) => ({ argv: ['-q', point] })),
          { argv: ['-q', /./], exitCode: 32 },
        ],
      },
      modprobe: { calls: guest.modprobe ?? modules },
      mount: { calls: guest.mount ?? [] },
      umount: { calls: guest.umount ?? [] },
      uname: { calls: [{ argv: ['-r'], stdout: '6.12.0-test\n' }] },
    },
    ['mkdir'],
  );
}

function run(...args: readonly string[]): Promise<Ended> {
  return house.run('mounts.sh', args, { ZFSDEV_MOUNTS: house.at('mounts') });
}

const configure = (...lines: readonly (readonly string[])[]): Promise<void> =>
  writeFile(house.at('mounts'), lines.map((words) => `${words.join('\t')}\n`).join(''));

const mounts = (type: string, options: string, tag: string, point: string): ExpectedCall => ({
  argv: ['-c', '-t', type, '-o', options, tag, point],
  times: 1,
});

/** The calls that change something. */
const changes = async (): Promise<string[]> =>
  (await house.calls()).filter((call) => /^u?mount /.test(call)).map((call) => call.split(' ').at(-1) ?? '');

describe('mounts.sh start', () => {
  it('mounts each share as it was told, on mount points that it makes', async () => {
    await configure(
      ['9p', 'src', house.at('my sources'), 'rw'],
      ['virtiofs', 'cache', house.at('a/b'), 'ro'],
    );
    await play({
      mount: [
        mounts('9p', `rw,${nine}`, 'src', house.at('my sources')),
        mounts('virtiofs', 'ro', 'cache', house.at('a/b')),
      ],
    });
    expect(await run('start')).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect((await stat(house.at('my sources'))).isDirectory()).toBe(true);
    expect((await stat(house.at('a/b'))).isDirectory()).toBe(true);
    expect(await changes()).toHaveLength(2);
  });

  it('has the guest hold to read-only as well as the host', async () => {
    await configure(['9p', 'src', house.at('src'), 'ro']);
    await play({ mount: [mounts('9p', `ro,${nine}`, 'src', house.at('src'))] });
    expect(await run()).toMatchObject({ exitCode: 0 });
  });

  it('leaves alone what is mounted', async () => {
    await configure(['9p', 'src', house.at('src'), 'rw'], ['9p', 'more', house.at('more'), 'rw']);
    await play({
      mounted: [house.at('src')],
      mount: [mounts('9p', `rw,${nine}`, 'more', house.at('more'))],
    });
    expect(await run('start')).toMatchObject({ exitCode: 0 });
    expect(await changes()).toEqual([house.at('more')]);
  });

  it('does nothing without shares, and loads nothing', async () => {
    await play();
    expect(await run('start')).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(await house.calls()).toEqual([]);
  });

  it("fails in the mount's own words", async () => {
    await configure(['9p', 'gone', house.at('src'), 'rw'], ['9p', 'more', house.at('more'), 'rw']);
    const words = `mount: ${house.at('src')}: special device gone does not exist.`;
    await play({
      mount: [{ ...mounts('9p', `rw,${nine}`, 'gone', house.at('src')), exitCode: 32, stderr: `${words}\n` }],
    });
    expect(await run('start')).toEqual({
      exitCode: 1,
      stdout: '',
      stderr: `mounts.sh: gone can't be mounted on ${house.at('src')}: ${words}\n`,
    });
  });

  it('names the kernel that knows no such file system', async () => {
    await configure(['9p', 'src', house.at('src'), 'rw']);
    const words = 'modprobe: FATAL: Module 9p not found in directory /lib/modules/6.12.0-test';
    await play({ modprobe: [{ argv: ['-a', '9p', '9pnet_virtio'], exitCode: 1, stderr: `${words}\n` }] });
    expect(await run('start')).toMatchObject({
      exitCode: 1,
      stderr: `mounts.sh: the kernel 6.12.0-test can't mount 9p: ${words}\n`,
    });
  });

  it('says why a mount point can not be made', async () => {
    await writeFile(house.at('file'), '');
    await configure(['virtiofs', 'src', house.at('file/inner'), 'rw']);
    await play();
    const { exitCode, stderr } = await run('start');
    expect(stderr).toContain("mounts.sh: src can't be mounted: mkdir:");
    expect(exitCode).toBe(1);
  });

  it.each([
    ['a type', ['nfs', 'src', '/mnt', 'rw'], 'nfs is neither 9p nor virtiofs'],
    ['a mode', ['9p', 'src', '/mnt', 'maybe'], 'maybe is neither ro nor rw'],
    ['a mount point', ['9p', 'src', 'mnt', 'rw'], 'mnt is no absolute path'],
    ['all but the type', ['9p'], 'is neither ro nor rw'],
  ])('refuses a line with %s that is none', async (_, words, message) => {
    await configure(words);
    await play();
    const { exitCode, stderr } = await run('start');
    expect(stderr).toContain(message);
    expect(exitCode).toBe(1);
  });

  it('takes a last line without an end', async () => {
    await writeFile(house.at('mounts'), `9p\tsrc\t${house.at('src')}\trw`);
    await play({ mount: [mounts('9p', `rw,${nine}`, 'src', house.at('src'))] });
    expect(await run('start')).toMatchObject({ exitCode: 0 });
    expect(await changes()).toEqual([house.at('src')]);
  });
});

describe('mounts.sh stop', () => {
  const points = (): string[] => ['a', 'a/b', 'c'].map((name) => house.at(name));

  beforeEach(() => configure(...points().map((point, i) => ['9p', `tag${i}`, point, 'rw'])));

  it('unmounts the last one first, and what is mounted alone', async () => {
    const [first = '', , last = ''] = points();
    await play({ mounted: [first, last], umount: [{ argv: [last] }, { argv: [first] }] });
    expect(await run('stop')).toMatchObject({ exitCode: 0 });
    expect(await changes()).toEqual([last, first]);
  });

  it('lets go of what is still in use', async () => {
    const [first = ''] = points();
    await play({
      mounted: [first],
      umount: [{ argv: [first], exitCode: 32, stderr: 'target is busy\n' }, { argv: ['--lazy', first] }],
    });
    expect(await run('stop')).toMatchObject({ exitCode: 0 });
  });
});

it('says how it is called', async () => {
  await configure(['9p', 'src', '/mnt', 'rw']);
  await play();
  expect(await run('restart')).toMatchObject({
    exitCode: 1,
    stderr: 'mounts.sh: usage: mounts.sh [start|stop]\n',
  });
});
