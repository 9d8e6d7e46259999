import { mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bytes, GiB } from '../../../src/core/bytes.ts';
import { check, createOverlay, info, measure } from '../../../src/qemu/img.ts';
import { fakePrograms, type ExpectedCall, type FakePrograms } from '../../fakes/programs.ts';
import { testContext, type TestContext } from '../../support/context.ts';

const recorded = (name: string): Promise<string> =>
  readFile(join(import.meta.dirname, '../../recorded/qemu-7.2', name), 'utf8');

let ctx: TestContext;
let fakes: FakePrograms | undefined;

beforeEach(async () => {
  ctx = await testContext();
});

afterEach(async () => {
  await fakes?.verify();
  await fakes?.remove();
  await ctx.remove();
  fakes = undefined;
});

async function withImg(...calls: ExpectedCall[]): Promise<TestContext> {
  fakes = await fakePrograms({ 'qemu-img': { calls } });
  await ctx.remove();
  ctx = await testContext({ path: fakes.path });
  return ctx;
}

/** A state home with an image; gives the paths of it and of the overlay to be. */
async function home(): Promise<{ path: string; backing: string }> {
  const [image, instance] = [join(ctx.folder, 'images/d'), join(ctx.folder, 'instances/a')];
  await mkdir(image, { recursive: true });
  await mkdir(instance, { recursive: true });
  await writeFile(join(image, 'disk.qcow2'), '');
  return { path: join(instance, 'disk.qcow2'), backing: join(image, 'disk.qcow2') };
}

const size = bytes(4 * GiB);
const create = (path: string, backing: string): string[] =>
  `create -q -f qcow2 -o extended_l2=on,cluster_size=128k -b ${backing} -F qcow2`
    .split(' ')
    .concat(path, String(size));

test('an overlay is private, and names its backing file from where it lies', async () => {
  await withImg();
  const { path, backing } = await home();
  await fakes?.remove();
  fakes = await fakePrograms({
    'qemu-img': { calls: [{ argv: create(path, '../../images/d/disk.qcow2') }] },
  });
  const other = await testContext({ path: fakes.path });
  await createOverlay(other, { path, backing, backingFormat: 'qcow2', size });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  await expect(createOverlay(other, { path, backing, backingFormat: 'qcow2', size })).rejects.toMatchObject({
    reason: 'already-exists',
  });
  await other.remove();
});

test('a folder that is a symbolic link does not lead the backing file astray', async () => {
  const { backing } = await home();
  await mkdir(join(ctx.folder, 'far/away/place'), { recursive: true });
  await symlink(join(ctx.folder, 'far/away/place'), join(ctx.folder, 'link'));
  const path = join(ctx.folder, 'link/disk.qcow2');
  fakes = await fakePrograms({
    'qemu-img': { calls: [{ argv: create(path, '../../../images/d/disk.qcow2') }] },
  });
  const other = await testContext({ path: fakes.path });
  await createOverlay(other, { path, backing, backingFormat: 'qcow2', size });
  await other.remove();
});

test('a failed creation leaves no file, and says what qemu-img said', async () => {
  const { path, backing } = await home();
  fakes = await fakePrograms({
    'qemu-img': {
      calls: [
        {
          argv: create(path, '../../images/d/disk.qcow2'),
          stderr: 'qemu-img: disk.qcow2: No space left on device\n',
          exitCode: 1,
        },
      ],
    },
  });
  const other = await testContext({ path: fakes.path });
  await expect(createOverlay(other, { path, backing, backingFormat: 'qcow2', size })).rejects.toMatchObject({
    reason: 'process',
    detail: 'qemu-img: disk.qcow2: No space left on device',
  });
  await expect(stat(path)).rejects.toThrow('ENOENT');
  await other.remove();
});

test('a backing file that is gone is told before anything is made', async () => {
  await withImg();
  const { path } = await home();
  await expect(
    createOverlay(ctx, { path, backing: '/nowhere/disk.qcow2', backingFormat: 'raw', size }),
  ).rejects.toMatchObject({ reason: 'not-found' });
  await expect(stat(path)).rejects.toThrow('ENOENT');
});

test('info of QEMU 7.2', async () => {
  await withImg({ argv: ['info', '-U', '--output=json', '/d.qcow2'], stdout: await recorded('info.json') });
  expect(await info(ctx, '/d.qcow2')).toEqual({
    format: 'qcow2',
    virtual: 4 * GiB,
    actual: 405504,
    backing: '../images/base.qcow2',
    fullBacking: 'rec/instances/../images/base.qcow2',
    backingFormat: 'qcow2',
    corrupt: false,
    snapshots: [{ id: '1', name: 'before', memory: 0, date: 1795237453520 }],
  });
});

test('measure of QEMU 7.2', async () => {
  const argv = 'measure --output=json -O qcow2 -o extended_l2=on,cluster_size=128k --size 4294967296'.split(
    ' ',
  );
  await withImg({ argv, stdout: await recorded('measure.json') });
  expect(await measure(ctx, { size })).toEqual({ required: 1048576, fullyAllocated: 4296015872 });
});

test('check: whole, leaking, damaged, and one that could not be made', async () => {
  const argv = ['check', '--output=json', '/d.qcow2'];
  await withImg(
    { argv, stdout: await recorded('check.json'), times: 1 },
    { argv, stdout: '{"check-errors": 0, "leaks": 3}', exitCode: 3, times: 1 },
    { argv, stdout: '{"check-errors": 0, "corruptions": 2, "leaks": 1}', exitCode: 2, times: 1 },
    { argv, stderr: "qemu-img: Could not open '/d.qcow2'\n", exitCode: 1, times: 1 },
  );
  expect(await check(ctx, '/d.qcow2')).toEqual({ corruptions: 0, leaks: 0, errors: 0 });
  expect(await check(ctx, '/d.qcow2')).toEqual({ corruptions: 0, leaks: 3, errors: 0 });
  expect(await check(ctx, '/d.qcow2')).toEqual({ corruptions: 2, leaks: 1, errors: 0 });
  await expect(check(ctx, '/d.qcow2')).rejects.toMatchObject({ reason: 'process' });
});

test.each(['not JSON', '{"format": "qcow2"}'])(
  'an answer of another form is a failure: %s',
  async (stdout) => {
    await withImg({ argv: ['info', '-U', '--output=json', '/d'], stdout });
    await expect(info(ctx, '/d')).rejects.toMatchObject({ reason: 'process' });
  },
);
