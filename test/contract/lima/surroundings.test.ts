import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { surveyUsage } from '../../../src/storage/usage.ts';
import { limaEnvironment } from '../../../src/vm/lima-start.ts';
import type { TestContext } from '../../support/context.ts';
import { limaInstance } from '../../support/instances.ts';
import { header } from '../../support/qcow2.ts';
import { LimaHouse, machine, versions } from './support.ts';

let house: LimaHouse;
beforeEach(async () => {
  house = await LimaHouse.open();
});
afterEach(() => house.close());

describe('LIMA_HOME of the user', () => {
  const namesAndFolders = async (ctx: TestContext, all: boolean): Promise<(string | undefined)[][]> =>
    (await surveyUsage(ctx, { names: [], all })).machines.map(({ name, disks }) => [name, disks[0]?.path]);

  // That it is not taken for machines of zfsdev's own, every call of limactl in these tests proves.
  it('is looked at by usage --all, beside the machines of zfsdev', async () => {
    await house.stoppedMachine();
    await writeFile(join(house.folder, 'disk'), header(4 * 2 ** 30));
    const theirs = join(house.root, 'theirs');
    await writeFile(join(await limaInstance(theirs, 'default'), 'disk'), header(2 ** 30));
    const ctx = await house.play({}, { env: { LIMA_HOME: theirs } });
    const own = [machine, join(house.folder, 'disk')];
    expect(await namesAndFolders(ctx, false)).toEqual([own]);
    expect(await namesAndFolders(ctx, true)).toEqual([own, ['default', join(theirs, 'default/disk')]]);
  });

  it('that is the one of zfsdev itself has no machine shown twice', async () => {
    await house.stoppedMachine();
    await writeFile(join(house.folder, 'disk'), header(4 * 2 ** 30));
    const ctx = await house.play({}, { env: { LIMA_HOME: join(house.root, 'home/lima') } });
    expect(await namesAndFolders(ctx, true)).toEqual([[machine, join(house.folder, 'disk')]]);
  });
});

describe.each(versions)('usage of a machine of limactl %s', (version) => {
  it('shows each of its disks once', async () => {
    await house.close();
    house = await LimaHouse.open(version);
    await house.stoppedMachine();
    const [first = '', base] = version === '2.0.3' ? ['diffdisk', 'basedisk'] : ['disk'];
    if (base !== undefined) await writeFile(join(house.folder, base), header(2 ** 30));
    const backing = base === undefined ? {} : { backing: join(house.folder, base) };
    await writeFile(join(house.folder, first), header(4 * 2 ** 30, backing));
    const { machines } = await surveyUsage(await house.ctx, { names: [], all: false });
    expect(machines).toMatchObject([{ name: machine, driver: 'lima', status: 'stopped' }]);
    expect(machines[0]?.disks.map(({ path, virtual, problem }) => [path, virtual, problem])).toEqual([
      [join(house.folder, first), 4 * 2 ** 30, undefined],
      ...(base === undefined ? [] : [[join(house.folder, base), 2 ** 30, undefined]]),
    ]);
  });
});

describe('what Lima is told of the accelerator', () => {
  const architecture = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const variable = `QEMU_SYSTEM_${architecture.toUpperCase()}`;
  const machineOf = { x86_64: 'q35,vmport=off,accel=tcg', aarch64: 'virt,accel=tcg' }[architecture];

  /** A QEMU under which no guest gets through, whether there is a /dev/kvm or not. */
  async function brokenQemu(): Promise<string> {
    const folder = join(house.root, 'bin');
    await mkdir(folder, { recursive: true });
    const file = join(folder, `qemu-system-${architecture}`);
    const version = "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)'";
    await writeFile(file, `#!/bin/sh\nif [ "$*" = --version ]; then ${version}; else exit 1; fi\n`);
    await chmod(file, 0o755);
    return folder;
  }

  it('is both options, where acceleration does not work: with one alone Lima adds its own', async () => {
    const env = { PATH: await brokenQemu() };
    const ctx = await house.play({}, { env });
    const without = { ...ctx.env, [variable]: undefined };
    const found = await limaEnvironment({ ...ctx, env: without }, 'linux');
    expect(found[variable]).toMatch(
      new RegExp(`^qemu-system-${architecture} -machine ${machineOf} -cpu max`),
    );
  });

  it('is nothing, where the user has said it', async () => {
    const ctx = await house.play({}, { env: { PATH: await brokenQemu(), [variable]: '/opt/my-qemu' } });
    expect(await limaEnvironment(ctx, 'linux')).toEqual({});
  });

  it('needs a QEMU, and says what installs it', async () => {
    const ctx = await house.ctx;
    const without = { ...ctx.env, [variable]: undefined };
    await rm(ctx.paths.accelerator, { force: true });
    await expect(limaEnvironment({ ...ctx, env: without }, 'linux')).rejects.toMatchObject({
      reason: 'dependency',
      hint: expect.stringContaining('qemu-system') as string,
    });
  });
});
