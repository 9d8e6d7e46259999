import { link, mkdir, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { surveyUsage, totalOf, type MachineUsage } from '../../../src/storage/usage.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { limaInstance, stoppedInstance } from '../../support/instances.ts';
import { header } from '../../support/qcow2.ts';
import { shell } from '../../support/zfsdev.ts';

let base: TestContext;
let ctx: TestContext;
let lima: string;

beforeEach(async () => {
  base = await testContext();
  lima = join(base.folder, 'lima');
  ctx = { ...base, env: { ...base.env, LIMA_HOME: lima } };
});
afterEach(() => base.remove());

const GiB = 2 ** 30;
/** What `header` takes. */
const blocks = 131_072;

async function survey(...names: string[]): Promise<readonly MachineUsage[]> {
  return (await surveyUsage(ctx, { names, all: true })).machines;
}

describe('a stopped instance', () => {
  it('is told from its header: virtual, actual, backing file', async () => {
    await writeFile(join(base.folder, 'base'), '');
    const backing = join(base.folder, 'base');
    await writeFile((await stoppedInstance(ctx.paths, 'a')).disk, header(4 * GiB, { backing }));
    const [machine] = await survey();
    expect(machine).toMatchObject({ name: 'a', status: 'stopped', driver: 'qemu' });
    expect(machine?.disks).toMatchObject([
      { kind: 'qcow2', virtual: 4 * GiB, actual: blocks, snapshots: 0, backing },
    ]);
    expect(machine?.disks[0]?.problem).toBeUndefined();
    expect(machine?.other).toBeGreaterThan(0);
  });

  it('of an unknown name is an error', async () => {
    const asked = surveyUsage(ctx, { names: ['nobody'], all: false });
    await expect(asked).rejects.toThrow(Failure);
    await expect(asked).rejects.toThrow('there is no instance "nobody"');
  });
});

describe('Lima instances', () => {
  it('of before 2.1 have an overlay and its base, and links of the new names count nothing twice', async () => {
    const folder = await limaInstance(lima, 'old');
    await writeFile(join(folder, 'basedisk'), header(GiB));
    await writeFile(join(folder, 'diffdisk'), header(100 * GiB, { backing: join(folder, 'basedisk') }));
    await symlink('diffdisk', join(folder, 'disk'));
    const found = await surveyUsage(ctx, { names: [], all: true });
    const [machine] = found.machines;
    expect(machine).toMatchObject({ name: 'old', driver: 'lima', status: 'stopped', other: 0 });
    expect(machine?.disks.map(({ path, virtual }) => [path.split('/').at(-1), virtual])).toEqual([
      ['diffdisk', 100 * GiB],
      ['basedisk', GiB],
    ]);
    expect(found.shared).toEqual([]);
    expect(totalOf(found)).toBe(2 * blocks);
  });

  it('from 2.1 on have one disk, raw ones too, and an ISO', async () => {
    const folder = await limaInstance(lima, 'new');
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
    await limaInstance(lima, 'theirs');
    expect((await surveyUsage(ctx, { names: [], all: false })).machines).toEqual([]);
    expect((await surveyUsage(ctx, { names: ['theirs'], all: false })).machines).toHaveLength(1);
  });

  it.each([
    ['none of them', []],
    ['only the image that it was to stand on', ['basedisk']],
  ])('whose disk is missing say so: there is %s', async (_, files) => {
    const folder = await limaInstance(lima, 'damaged');
    for (const file of files) await writeFile(join(folder, file), header(GiB));
    const [damaged] = await survey();
    expect(damaged).toMatchObject({ name: 'damaged', status: 'broken', problem: 'its disk is missing' });
    const { stdout } = await shell(ctx.paths.home).with({ LIMA_HOME: lima })('usage', '--all');
    expect(stdout).toMatch(/damaged +broken \(lima\)/);
    expect(stdout).toContain('damaged: its disk is missing');
  });

  it('that can not be looked at have a row that says so', async () => {
    await mkdir(join(lima, 'loop'), { recursive: true });
    await symlink('lima.yaml', join(lima, 'loop', 'lima.yaml'));
    await writeFile(join(await limaInstance(lima, 'well'), 'disk'), header(GiB));
    const [loop, well] = await survey();
    expect(loop).toMatchObject({ name: 'loop', status: 'broken', disks: [] });
    expect(loop?.problem).toContain('ELOOP');
    expect(well?.disks[0]).toMatchObject({ virtual: GiB });
  });
});

describe('what several machines stand on', () => {
  it('is counted once, by whatever names it is reached, with what it stands on itself', async () => {
    await writeFile(join(base.folder, 'ground'), header(GiB));
    await writeFile(join(base.folder, 'cloud.qcow2'), header(GiB, { backing: 'ground' }));
    await symlink('cloud.qcow2', join(base.folder, 'latest'));
    for (const [name, backing] of [
      ['a', join(base.folder, 'cloud.qcow2')],
      ['b', '../../latest'],
      ['c', `file:${join(base.folder, 'latest')}`],
    ] as const)
      await writeFile(join(await limaInstance(lima, name), 'disk'), header(GiB, { backing }));
    await writeFile(
      (await stoppedInstance(ctx.paths, 'own')).disk,
      header(GiB, { backing: join(base.folder, 'latest') }),
    );
    const found = await surveyUsage(ctx, { names: [], all: true });
    const usedBy = ['own', 'a', 'b', 'c'];
    expect(found.shared).toEqual([
      { what: 'base', key: join(base.folder, 'cloud.qcow2'), actual: blocks, usedBy },
      { what: 'base', key: join(base.folder, 'ground'), actual: blocks, usedBy },
    ]);
    const others = found.machines.reduce((sum, { other }) => sum + other, 0);
    expect(totalOf(found)).toBe(6 * blocks + others);
  });

  it("may be another machine's own disk, or one file under two names", async () => {
    const first = join(await limaInstance(lima, 'first'), 'disk');
    await writeFile(first, header(GiB));
    await writeFile(join(await limaInstance(lima, 'second'), 'disk'), header(GiB, { backing: first }));
    await link(first, join(await limaInstance(lima, 'third'), 'disk'));
    const found = await surveyUsage(ctx, { names: [], all: true });
    expect(found.shared).toEqual([]);
    expect(totalOf(found)).toBe(2 * blocks);
  });

  it('may be a chain in a circle, or no file at all', async () => {
    await writeFile(join(base.folder, 'x'), header(GiB, { backing: 'y' }));
    await writeFile(join(base.folder, 'y'), header(GiB, { backing: 'x' }));
    await writeFile(
      join(await limaInstance(lima, 'a'), 'disk'),
      header(GiB, { backing: join(base.folder, 'x') }),
    );
    await writeFile(
      join(await limaInstance(lima, 'b'), 'disk'),
      header(GiB, { backing: 'nbd://host/export' }),
    );
    const { machines, shared } = await surveyUsage(ctx, { names: [], all: true });
    expect(shared.map(({ key }) => key)).toEqual([join(base.folder, 'x'), join(base.folder, 'y')]);
    expect(machines[1]?.disks[0]).toMatchObject({ backing: 'nbd://host/export' });
    expect(machines[1]?.disks[0]?.problem).toBeUndefined();
  });

  it('is counted where its name has the options of a file, or of a whole chain', async () => {
    const [near, far, ground] = ['near', 'far', 'ground'].map((name) => join(base.folder, name));
    await writeFile(ground ?? '', header(GiB));
    await writeFile(far ?? '', header(GiB, { backing: 'ground' }));
    await writeFile(near ?? '', header(GiB));
    const file = (filename = ''): object => ({ driver: 'qcow2', file: { driver: 'file', filename } });
    for (const [name, options] of [
      ['a', file(near)],
      ['b', { backing: file(far), ...file(near) }],
      ['c', { driver: 'nbd', server: { type: 'inet', host: 'host', port: '1' } }],
    ] as const) {
      const backing = `json:${JSON.stringify(options)}`;
      await writeFile(join(await limaInstance(lima, name), 'disk'), header(GiB, { backing }));
    }
    const found = await surveyUsage(ctx, { names: [], all: true });
    expect(found.machines.map(({ disks }) => disks[0]?.problem)).toEqual([undefined, undefined, undefined]);
    expect(found.machines[0]?.disks[0]).toMatchObject({ backing: near });
    expect(found.machines[2]?.disks[0]?.backing).toMatch(/^json:.*nbd/);
    expect(found.shared).toEqual([
      { what: 'base', key: near, actual: blocks, usedBy: ['a', 'b'] },
      { what: 'base', key: far, actual: blocks, usedBy: ['b'] },
      { what: 'base', key: ground, actual: blocks, usedBy: ['b'] },
    ]);
  });
});
