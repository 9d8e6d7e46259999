import { existsSync, readFileSync, watch } from 'node:fs';
import { chmod, link, mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseName } from '../../../src/core/names.ts';
import { unfinishedFile } from '../../../src/host/paths.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import { call, callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { machinesOf } from '../../support/machines.ts';
import { done, refused } from '../../support/outcome.ts';
import { shell, type Shell } from '../../support/zfsdev.ts';

/** When a zfsdev that makes a disk is killed. */
const moments = [
  'before qemu-img',
  'after qemu-img',
  'once the unfinished file is there',
  'once the disk has its name',
] as const;
type Moment = (typeof moments)[number];

let ctx: TestContext;
let zfsdev: Shell;
let file: string;

beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B', HOME: ctx.folder });
  file = join(ctx.folder, 'vms', 'data.qcow2');
  await mkdir(dirname(file));
  await writeFile(join(ctx.folder, 'pass'), 'correct horse', { mode: 0o600 });
  const { disk, spec } = await stoppedInstance(ctx.paths, 'a', { diskBound: 64 * 2 ** 20 });
  callIn(ctx.folder, 'qemu-img', 'create', '-q', '-f', 'qcow2', disk, '64M');
  await writeFile(spec, JSON.stringify({ ...(readSpec(spec) as object), accelerator: 'tcg' }));
});
afterEach(() => ctx.remove());

const readSpec = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
const files = async (): Promise<string[]> => (await readdir(dirname(file))).sort();

/** A zfsdev whose qemu-img, which is a real one, kills it before or after it has made a disk. */
async function killedBy(moment: Moment): Promise<Shell> {
  const folder = join(ctx.folder, 'bin');
  await mkdir(folder, { recursive: true });
  const real = call('sh', '-c', 'command -v qemu-img').trim();
  const kill = 'kill -9 "$PPID"';
  const script = `#!/bin/sh
if [ "$1" != create ]; then exec ${real} "$@"; fi
${moment === 'before qemu-img' ? kill : `${real} "$@"`}
${moment === 'after qemu-img' ? kill : ''}
`;
  await writeFile(join(folder, 'qemu-img'), script);
  await chmod(join(folder, 'qemu-img'), 0o755);
  return zfsdev.with({ PATH: `${folder}:${process.env['PATH'] ?? ''}` });
}

/** Begins a command and has it killed at that moment; it may have been through by then where only its files tell. */
async function kill(moment: Moment, ...args: readonly string[]): Promise<void> {
  if (moment === 'before qemu-img' || moment === 'after qemu-img') {
    expect((await (await killedBy(moment))(...args)).exitCode).toBeNull();
    return;
  }
  const seen = moment === 'once the disk has its name' ? file : unfinishedFile(file);
  const begun = zfsdev.begin(...args);
  // It takes longer to begin than this does.
  const watcher = watch(dirname(file), () => {
    if (existsSync(seen)) begun.kill('SIGKILL');
  });
  await begun.result;
  watcher.close();
}

/** Whatever has the disk's name is all of it, and nobody who is left goes on with it. */
async function expectWholeOrNothing(): Promise<void> {
  expect(await machinesOf(ctx.folder)).toEqual([]);
  if (!existsSync(file)) return;
  expect(callIn(ctx.folder, 'qemu-img', 'info', '--output=json', file)).toMatch(/"virtual-size": 8388608/);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
}

describe('a zfsdev that is killed by SIGKILL while it adds a disk', () => {
  const add = (): string[] => ['disk', 'add', 'a', 'data', '--size', '8MiB', '--file', file];

  it.each(moments)('%s: leaves it whole or not at all, and the same command completes it', async (moment) => {
    await kill(moment, ...add());
    await expectWholeOrNothing();
    const again = await zfsdev(...add());
    // It may have been through when it was killed.
    if (again.exitCode !== 0) expect(again.stderr).toContain('has a disk "data" already');
    expect(await files()).toEqual(['data.qcow2']);
    expect(callIn(ctx.folder, 'qemu-img', 'check', file)).toContain('No errors');
    await done(zfsdev('disk', 'add', 'a', 'other', '--size', '8MiB'));
    expect((await done(zfsdev('disk', 'list', 'a'))).stdout).toMatch(/root[^]*data[^]*other/);
  });

  it.each(moments)('%s: holds no lock, and nothing of it stays once the disk is removed', async (moment) => {
    await kill(moment, ...add());
    await done(zfsdev('disk', 'remove', 'a', 'data', '--yes'));
    // What has its name is the user's own by the command's word.
    expect((await files()).filter((name) => name !== 'data.qcow2')).toEqual([]);
    expect((await done(zfsdev('disk', 'list', 'a'))).stdout).not.toContain('data');
  });

  it('in the middle of its encryption: leaves no half-made disk', async () => {
    const encrypted = [...add(), '--passphrase-file', join(ctx.folder, 'pass')];
    const begun = zfsdev.begin(...encrypted);
    // LUKS measures for a second before it writes anything.
    await expect.poll(() => existsSync(unfinishedFile(file)), { timeout: 60_000, interval: 5 }).toBe(true);
    begun.kill('SIGKILL');
    expect((await begun.result).exitCode).toBeNull();
    await expect.poll(() => machinesOf(ctx.folder), { timeout: 60_000 }).toEqual([]);
    expect(existsSync(file)).toBe(false);
    await done(zfsdev(...encrypted));
    expect(await files()).toEqual(['data.qcow2']);
  });

  it('between its two names: leaves one of them after the same command', async () => {
    await kill('after qemu-img', ...add());
    await link(unfinishedFile(file), file);
    await done(zfsdev(...add()));
    expect(await files()).toEqual(['data.qcow2']);
  });
});

describe("a zfsdev that is killed by SIGKILL while it makes a template's disks", () => {
  beforeEach(async () => {
    const path = ctx.paths.instance(parseName('a')).spec;
    const storage = ['data', 'more'].map((name) => ({
      ...diskFromOptions(name, { size: '8MiB' }),
      file: join(dirname(file), `${name}.qcow2`),
    }));
    await writeFile(path, JSON.stringify({ ...(readSpec(path) as object), storage }));
  });

  it.each(moments)(
    '%s: the next start makes what is missing, and takes nothing half-made',
    async (moment) => {
      await kill(moment, 'start', 'a');
      await expectWholeOrNothing();
      const had = (await files()).filter((name) => !name.startsWith('.'));
      // This machine has no image to boot from: what this start made goes again, what was there stays.
      await refused(
        zfsdev('start', 'a'),
        1,
        'Creating the qcow2 disk "more"',
        'the image "a" stands on is gone',
      );
      expect(await files()).toEqual(had);
    },
  );

  it('deletes what is left of it with the machine', async () => {
    await kill('before qemu-img', 'start', 'a');
    expect(await files()).toEqual(['.data.qcow2.zfsdev-new']);
    await done(zfsdev('delete', 'a'));
    expect(await files()).toEqual([]);
  });
});
