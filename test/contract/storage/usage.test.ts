import { mkdir, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseName } from '../../../src/core/names.ts';
import { Failure } from '../../../src/core/errors.ts';
import { surveyUsage, type MachineUsage } from '../../../src/storage/usage.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import { newState } from '../../../src/vm/state.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let base: TestContext;
let ctx: TestContext;
let lima: string;

beforeEach(async () => {
  base = await testContext();
  lima = join(base.folder, 'lima');
  ctx = { ...base, env: { ...base.env, LIMA_HOME: lima } };
});
afterEach(() => base.remove());

/** The start of a qcow2 of 64 KiB clusters, as QEMU writes it; the rest of it is not looked at. */
function header(size: number, options: { backing?: string; corrupt?: boolean } = {}): Buffer {
  const bytes = Buffer.alloc(65_536);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(3, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(BigInt(size), 24);
  bytes.writeBigUInt64BE(options.corrupt ? 2n : 0n, 72);
  bytes.writeUInt32BE(104, 100);
  if (options.backing !== undefined) {
    bytes.writeBigUInt64BE(512n, 8);
    bytes.writeUInt32BE(bytes.write(options.backing, 512), 16);
  }
  return bytes;
}

async function instance(name: string): Promise<string> {
  const paths = ctx.paths.instance(parseName(name));
  await mkdir(paths.folder, { recursive: true });
  await writeFile(paths.spec, JSON.stringify(await resolveSpec('zfs-test', { name })));
  await writeFile(paths.state, JSON.stringify({ ...newState('qemu'), phase: 'started' }));
  return paths.disk;
}

async function survey(...names: string[]): Promise<readonly MachineUsage[]> {
  return (await surveyUsage(ctx, { names, all: true })).machines;
}

describe('a stopped instance', () => {
  it('is told from its header: virtual, actual, backing file', async () => {
    const disk = await instance('a');
    await writeFile(join(base.folder, 'base'), '');
    await writeFile(disk, header(4 * 2 ** 30, { backing: join(base.folder, 'base') }));
    const [machine] = await survey();
    expect(machine).toMatchObject({ name: 'a', status: 'stopped', driver: 'qemu' });
    expect(machine?.disks).toMatchObject([
      {
        kind: 'qcow2',
        virtual: 4 * 2 ** 30,
        actual: 65_536,
        snapshots: 0,
        backing: join(base.folder, 'base'),
      },
    ]);
    expect(machine?.disks[0]?.problem).toBeUndefined();
    expect(machine?.other).toBeGreaterThan(0);
  });

  it.each([
    ['no qcow2 though it has its magic', Buffer.from('QFI\xfb', 'latin1'), 'it is not a qcow2'],
    ['a version of the future', header(1).fill(9, 7, 8), 'version 9'],
    ['marked as corrupt', header(1, { corrupt: true }), 'marked it as corrupt'],
    ['on a backing file that is gone', header(1, { backing: 'gone.qcow2' }), 'gone.qcow2 is missing'],
    [
      'with a snapshot table that ends too early',
      header(1).fill(1, 63, 64).fill(255, 68, 70),
      'ends too early',
    ],
  ])('%s: its row says so, and the others are shown', async (_, content, words) => {
    await writeFile(await instance('bad'), content);
    await writeFile(await instance('good'), header(1024));
    const [bad, good] = await survey();
    expect(bad?.disks[0]?.problem).toContain(words);
    expect(good?.disks[0]).toMatchObject({ virtual: 1024 });
    expect(good?.disks[0]?.problem).toBeUndefined();
  });

  it('behind a dangling link: its row says so', async () => {
    await symlink(join(base.folder, 'nowhere'), await instance('a'));
    const [machine] = await survey();
    expect(machine?.problem ?? machine?.disks[0]?.problem).toMatch(/missing|can't be looked at/);
  });

  it('that can not be read (a folder in its place): its row says so', async () => {
    await mkdir(await instance('a'));
    expect((await survey())[0]?.disks[0]?.problem).toContain('EISDIR');
  });

  it('of an unknown name is an error', async () => {
    const asked = surveyUsage(ctx, { names: ['nobody'], all: false });
    await expect(asked).rejects.toThrow(Failure);
    await expect(asked).rejects.toThrow('there is no instance "nobody"');
  });
});

describe('Lima instances', () => {
  async function limaFolder(name: string): Promise<string> {
    await mkdir(join(lima, name), { recursive: true });
    await writeFile(join(lima, name, 'lima.yaml'), '');
    return join(lima, name);
  }

  it('of before 2.1 have an overlay and its base, and links of the new names count nothing twice', async () => {
    const folder = await limaFolder('old');
    await writeFile(join(folder, 'basedisk'), header(2 ** 30));
    await writeFile(join(folder, 'diffdisk'), header(100 * 2 ** 30, { backing: join(folder, 'basedisk') }));
    await symlink('diffdisk', join(folder, 'disk'));
    const [machine] = await survey();
    expect(machine).toMatchObject({ name: 'old', driver: 'lima', status: 'stopped' });
    expect(machine?.disks.map(({ path, virtual }) => [path.split('/').at(-1), virtual])).toEqual([
      ['diffdisk', 100 * 2 ** 30],
      ['basedisk', 2 ** 30],
    ]);
  });

  it('from 2.1 on have one disk, raw ones too, and an ISO', async () => {
    const folder = await limaFolder('new');
    await writeFile(join(folder, 'disk'), 'raw');
    await truncate(join(folder, 'disk'), 10 * 2 ** 20);
    const iso = Buffer.alloc(0x9000);
    iso.write('CD001', 0x8001);
    await writeFile(join(folder, 'iso'), iso);
    await mkdir(join(lima, '_config'), { recursive: true });
    const machines = await survey();
    expect(machines.map(({ name }) => name)).toEqual(['new']);
    expect(machines[0]?.disks).toMatchObject([
      { kind: 'raw', virtual: 10 * 2 ** 20 },
      { kind: 'iso', virtual: 0x9000 },
    ]);
    expect(machines[0]?.disks[0]?.actual).toBeLessThan(65_536);
  });

  it('are left out unless they are asked for', async () => {
    await limaFolder('theirs');
    expect((await surveyUsage(ctx, { names: [], all: false })).machines).toEqual([]);
    expect((await surveyUsage(ctx, { names: ['theirs'], all: false })).machines).toHaveLength(1);
  });
});
