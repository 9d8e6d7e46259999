import { randomBytes } from 'node:crypto';
import {
  copyFile,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MiB } from '../../../src/core/bytes.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { refused } from '../../support/outcome.ts';
import { qemuImgWith } from '../../support/qemu-img.ts';
import { shell, type Shell } from '../../support/zfsdev.ts';

let ctx: TestContext;
let zfsdev: Shell;
let disk: string;
let original: string;

const qemu = (program: 'qemu-img' | 'qemu-io', ...args: string[]): string =>
  callIn(ctx.folder, program, ...args);

/** A disk on a backing file, with random data, text, and holes in it. */
beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home);
  ({ disk } = await stoppedInstance(ctx.paths, 'a'));
  const base = join(ctx.folder, 'base.qcow2');
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', base, '256M');
  qemu('qemu-io', '-c', 'write -P 3 0 16M', base);
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', disk, '256M');
  // qemu-io knows no quotes: the file is named relative to the folder.
  await writeFile(join(ctx.folder, 'raw'), randomBytes(64 * MiB));
  qemu('qemu-io', '-c', 'write -s raw 32M 64M', '-c', 'write -P 65 128M 64M', '-c', 'write -z 4M 2M', disk);
  original = join(ctx.folder, 'original.qcow2');
  await copyFile(disk, original);
});
afterEach(() => ctx.remove());

function expectSameDisk(): void {
  expect(qemu('qemu-img', 'check', disk)).toContain('No errors');
  expect(qemu('qemu-img', 'compare', disk, original)).toContain('Images are identical');
}

async function files(): Promise<string[]> {
  return (await readdir(dirname(disk))).sort();
}

/**
 * A qemu-img that kills zfsdev outright around the nth call, where `n` counts check, info, convert, check and compare; told by
 * an environment of its own, as zfsdev hands on its own.
 */
async function deadly(call: number, when: 'before' | 'after'): Promise<Shell> {
  const calls = join(ctx.folder, 'calls');
  const script = `calls=$(cat '${calls}' 2>/dev/null || echo 0)
calls=$((calls + 1))
echo "$calls $1" >&2
echo $calls >'${calls}'
if [ $calls = ${call} ] && [ ${when} = before ]; then kill -9 $PPID; exit 1; fi
"$real" "$@"
status=$?
if [ $calls = ${call} ] && [ ${when} = after ]; then kill -9 $PPID; fi
exit $status`;
  return zfsdev.with({ PATH: await qemuImgWith(ctx.folder, script) });
}

describe('compact', () => {
  it('leaves a backing file that is named by options what it is', async () => {
    const filename = join(ctx.folder, 'base.qcow2');
    const name = `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename } })}`;
    qemu('qemu-img', 'rebase', '-u', '-b', name, '-F', 'qcow2', disk);
    expect(await zfsdev('compact', 'a')).toMatchObject({ exitCode: 0 });
    expectSameDisk();
    const { 'full-backing-filename': backing } = JSON.parse(
      qemu('qemu-img', 'info', '--output=json', disk),
    ) as Record<string, unknown>;
    expect(backing).toMatch(/^json:/);
  });

  it('writes less, with the same content, mode and backing file', async () => {
    const before = (await stat(disk)).blocks;
    expect(await zfsdev('compact', 'a')).toMatchObject({ exitCode: 0 });
    expect((await stat(disk)).blocks).toBeLessThan(before * 0.6);
    expect((await stat(disk)).mode & 0o777).toBe(0o600);
    expect(await files()).toEqual(['disk.qcow2', 'spec.json', 'state.json']);
    expectSameDisk();
    expect(qemu('qemu-img', 'info', disk)).toContain('base.qcow2');
  });

  it.each([
    [1, 'before', 'checking the old disk'],
    [1, 'after', 'checking the old disk'],
    [3, 'before', 'writing the new one'],
    [3, 'after', 'writing the new one'],
    [4, 'after', 'checking the new one'],
    [5, 'before', 'comparing'],
    [5, 'after', 'comparing'],
  ] as const)('killed outright at call %i, %s %s: the old disk, whole', async (call, when, step) => {
    const result = await (await deadly(call, when))('compact', 'a');
    expect(result.exitCode, step).toBeNull();
    expectSameDisk();
    const again = await zfsdev('compact', 'a');
    expect(again).toMatchObject({ exitCode: 0 });
    expect(await files()).toEqual(['disk.qcow2', 'spec.json', 'state.json']);
    expectSameDisk();
  });

  it('leaves no qemu-img writing when it is killed outright', async () => {
    const begun = zfsdev.begin('compact', 'a');
    await begun.until('Writing the disk');
    begun.kill('SIGKILL');
    await begun.result;
    await expect.poll(() => writers(), { timeout: 30_000 }).toEqual([]);
    expectSameDisk();
  });

  it.each([
    // An entry of the first table that points behind the end of the file; zfsdev reads those tables itself.
    ['a table that leads nowhere', (bytes: Buffer) => bytes.writeBigUInt64BE(1n << 62n, field(bytes, 40))],
    // The first table's own cluster is counted as free: only qemu-img check looks at that.
    [
      'a cluster in use that is counted as free',
      (bytes: Buffer) =>
        bytes.writeUInt16BE(0, field(bytes, field(bytes, 48)) + 2 * (field(bytes, 40) / 65_536)),
    ],
  ])('refuses a disk with %s, and leaves it as it is', async (_, damage) => {
    const bytes = await readFile(disk);
    damage(bytes);
    await writeFile(disk, bytes);
    await refused(zfsdev('compact', 'a'), 1, /is damaged|can't be compacted/);
    expect((await readFile(disk)).equals(bytes)).toBe(true);
    expect(await files()).toEqual(['disk.qcow2', 'spec.json', 'state.json']);
  });

  it('writes what a link leads to anew where that lies, and touches nothing of the user beside either', async () => {
    // On a file system of its own, which a rename could not leave.
    const far = await mkdtemp('/dev/shm/zfsdev-test-');
    try {
      const [real, link] = [join(far, 'real.qcow2'), join(ctx.folder, 'mine.qcow2')];
      await copyFile(original, real);
      await symlink(real, link);
      for (const path of [real, link]) await writeFile(`${path}.compact`, 'mine');
      const { size } = await stat(real);
      const spec = await resolveSpec('zfs-test', { name: 'a' });
      const mine = diskFromOptions('mine', { file: link });
      await writeFile(join(dirname(disk), 'spec.json'), JSON.stringify({ ...spec, storage: [mine] }));
      expect(await zfsdev('compact', 'a')).toMatchObject({ exitCode: 0 });
      expect((await stat(real)).size).toBeLessThan(size);
      expect(await readlink(link)).toBe(real);
      expect(qemu('qemu-img', 'compare', real, original)).toContain('Images are identical');
      for (const path of [real, link]) expect(await readFile(`${path}.compact`, 'utf8')).toBe('mine');
      expect((await readdir(far)).sort()).toEqual(['real.qcow2', 'real.qcow2.compact']);
    } finally {
      await rm(far, { recursive: true, force: true });
    }
  });

  it('keeps a disk that would take no less', async () => {
    expect(await zfsdev('compact', 'a')).toMatchObject({ exitCode: 0 });
    const { ino } = await stat(disk);
    const again = await zfsdev('compact', 'a');
    expect(again).toMatchObject({ exitCode: 0 });
    expect(again.stdout).toContain('0 B freed');
    expect((await stat(disk)).ino).toBe(ino);
    expect(await files()).toEqual(['disk.qcow2', 'spec.json', 'state.json']);
  });
});

/** A 64-bit number of a qcow2, all of whose tables lie in its first bytes. */
function field(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64BE(at));
}

/** Processes that have this test's disk on their command line. */
async function writers(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  );
  return lines.filter((line) => line.includes(disk));
}
