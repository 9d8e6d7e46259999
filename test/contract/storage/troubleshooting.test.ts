import { spawnSync } from 'node:child_process';
import { chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { parseName } from '../../../src/core/names.ts';
import { chooseAccelerator } from '../../../src/qemu/accelerator.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import type { StorageDevice } from '../../../src/template/storage.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done } from '../../support/outcome.ts';
import { shell, type Result, type Shell } from '../../support/zfsdev.ts';

let ctx: TestContext;
let zfsdev: Shell;
/** A path of the guide's, below the test's folder. */
const at = (path: string): string => join(ctx.folder, path);

beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B' });
  for (const name of ['mine', 'other']) {
    const { disk } = await stoppedInstance(ctx.paths, name, { diskBound: 64 * 2 ** 20 });
    call('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '64M');
  }
  for (const folder of ['/vms', '/opt']) {
    await mkdir(at(folder));
    await writeFile(join(at(folder), 'notes'), '');
  }
});
afterEach(() => ctx.remove());

const add = (machine: string, file: string, ...more: string[]): Promise<Result> =>
  zfsdev('disk', 'add', machine, 'data', '--size', '8MiB', '--file', file, ...more);

/** Starts a machine that has this beside its root disk. */
async function startWith(...storage: readonly StorageDevice[]): Promise<Result> {
  const { spec } = ctx.paths.instance(parseName('mine'));
  const present = JSON.parse(await readFile(spec, 'utf8')) as object;
  await writeFile(spec, JSON.stringify({ ...present, accelerator: 'tcg', storage }));
  return zfsdev('start', 'mine');
}

const share = (path: string): StorageDevice => ({
  type: 'virtfs',
  name: 'workspace',
  path,
  mountTag: 'workspace',
  protocol: '9p',
  securityModel: 'mapped-xattr',
  readonly: false,
  mountAt: '/mnt/workspace',
});

async function inLockedFolder(): Promise<Result> {
  await rm(at('/vms/notes'));
  await chmod(at('/vms'), 0o500);
  // To root modes mean nothing.
  const isRoot = process.getuid?.() === 0;
  if (isRoot) call('chattr', '+i', at('/vms'));
  try {
    return await add('mine', at('/vms/data.qcow2'));
  } finally {
    if (isRoot) spawnSync('chattr', ['-i', at('/vms')]);
    await chmod(at('/vms'), 0o700);
  }
}

/** A PATH that has what zfsdev starts programs by, and no qemu-img. */
async function withoutQemuImg(): Promise<Result> {
  await mkdir(at('/bin'));
  const setpriv = spawnSync('sh', ['-c', 'command -v setpriv'], { encoding: 'utf8' }).stdout.trim();
  if (setpriv !== '') await symlink(setpriv, at('/bin/setpriv'));
  const path = zfsdev.with({ PATH: at('/bin') });
  return path('disk', 'add', 'mine', 'data', '--size', '8MiB', '--file', at('/vms/data.qcow2'));
}

async function ofARawDisk(): Promise<Result> {
  await done(zfsdev('disk', 'add', 'mine', 'data', '--size', '8MiB', '--type', 'raw'));
  return zfsdev('snapshot', 'create', 'mine', 'one', '--disk', 'data');
}

async function ofAnother(): Promise<Result> {
  await done(add('other', at('/vms/data.qcow2')));
  return add('mine', at('/vms/data.qcow2'));
}

async function ofALostDisk(): Promise<Result> {
  const file = at('/vms/data.qcow2');
  const { state } = ctx.paths.instance(parseName('mine'));
  const present = JSON.parse(await readFile(state, 'utf8')) as object;
  await writeFile(state, JSON.stringify({ ...present, storage: { data: file } }));
  return startWith(diskFromOptions('data', { size: '8MiB', file }));
}

async function withoutKvm(): Promise<Result> {
  const question = { architecture: 'x86_64', choice: 'auto', platform: 'linux' } as const;
  const { reason } = await chooseAccelerator(ctx, { ...question, kvmDevice: at('/dev/kvm') });
  return { exitCode: 0, stdout: '', stderr: reason };
}

/** Each message that the guide quotes, by how it begins, with what causes it and the exit code. */
const causes: readonly [string, number, () => Promise<Result>][] = [
  ['error: the disk "data" can\'t be made: /vms can\'t', 1, inLockedFolder],
  ['error: the disk "data": /vms/notes', 1, () => add('mine', at('/vms/notes/data.qcow2'))],
  ['error: the disk "data": /etc', 1, () => add('mine', '/etc/data.qcow2')],
  ['error: the disk "data" can\'t be made at', 5, withoutQemuImg],
  [
    'error: in the worst case',
    3,
    () => {
      zfsdev = zfsdev.with({ ZFSDEV_RESERVE: '100TiB' });
      return add('mine', at('/vms/data.qcow2'));
    },
  ],
  ['error: "data" of "mine"', 4, ofARawDisk],
  ['error: the share "workspace": there', 4, () => startWith(share(at('/opt/workspace')))],
  ['error: the share "workspace": /opt/notes', 1, () => startWith(share(at('/opt/notes')))],
  ['this host has', 0, withoutKvm],
  ['error: /vms/data.qcow2', 4, ofAnother],
  ['error: the disk "data" is gone', 1, ofALostDisk],
];

const guide = async (): Promise<string> => {
  const text = await readFile('docs/storage.md', 'utf8');
  return text.slice(text.indexOf('## Troubleshooting'));
};

async function quoted(): Promise<string[]> {
  const blocks = (await guide()).matchAll(/```text\n([^]*?)```/g);
  return [...blocks].flatMap(([, lines = '']) => lines.trimEnd().split('\n'));
}

it.each(causes)('the guide quotes what is said: %s ...', async (start, exitCode, cause) => {
  const line = (await quoted()).find((each) => each.startsWith(start));
  expect(line).toBeDefined();
  const result = await cause();
  const said = result.stderr.replaceAll(ctx.folder, '');
  for (const part of (line ?? '').split('...')) expect(said).toContain(part);
  expect(result.exitCode).toBe(exitCode);
});

it('nothing is quoted that no test here has caused', async () => {
  const uncaused = (await quoted()).filter((line) => !causes.some(([start]) => line.startsWith(start)));
  expect(uncaused).toEqual([]);
});

it('a raw disk becomes one that holds snapshots by the command that the guide has', async () => {
  await done(zfsdev('disk', 'add', 'mine', 'data', '--size', '8MiB', '--type', 'raw'));
  const command = 'zfsdev disk change mine data --type qcow2';
  expect(await guide()).toContain(`\n${command}\n`);
  await done(zfsdev(...command.split(' ').slice(1)));
  await done(zfsdev('snapshot', 'create', 'mine', 'one', '--disk', 'data'));
});
