import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done, refused } from '../../support/outcome.ts';
import { qemuImgWith } from '../../support/qemu-img.ts';
import { shell, type Result, type Shell } from '../../support/zfsdev.ts';

let ctx: TestContext;
let zfsdev: Shell;
let disk: string;

const qemu = (program: 'qemu-img' | 'qemu-io', ...args: string[]): string =>
  callIn(ctx.folder, program, ...args);

beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B' });
  ({ disk } = await stoppedInstance(ctx.paths, 'a', { diskBound: 64 * 2 ** 20 }));
  const base = join(ctx.folder, 'base.qcow2');
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', base, '64M');
  qemu('qemu-io', '-c', 'write -P 3 0 4M', base);
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', disk, '64M');
});
afterEach(() => ctx.remove());

/** Fills the disk, told by a number; beside the backing file's part. */
const write = (pattern: number): string => qemu('qemu-io', '-c', `write -P ${pattern} 8M 8M`, disk);
/** qemu-io says so where the pattern isn't there, and exits 0. */
const holds = (pattern: number): boolean =>
  !qemu('qemu-io', '-c', `read -P ${pattern} 8M 8M`, '-c', 'read -P 3 0 4M', disk).includes('failed');

const snapshot = (verb: string, ...args: string[]): Promise<Result> => zfsdev('snapshot', verb, 'a', ...args);

const changes: readonly [string, string][] = [
  ['create', 'two'],
  ['load', 'one'],
  ['delete', 'one'],
];

interface Listed {
  readonly name: string;
  readonly description?: string;
  readonly diskBytes: number;
  readonly aloneBytes: number;
}

async function listed(): Promise<Listed[]> {
  const { stdout } = await done(snapshot('list', '--json'));
  return (JSON.parse(stdout) as { snapshots: Listed[] }).snapshots;
}

const names = async (): Promise<string[]> => (await listed()).map(({ name }) => name);
const files = async (): Promise<string[]> => (await readdir(dirname(disk))).sort();

function expectSound(): void {
  expect(qemu('qemu-img', 'check', disk)).toContain('No errors');
}

describe('snapshots of a stopped machine', () => {
  it('bring back what was there, and are listed with what they take', async () => {
    write(1);
    await done(snapshot('create', 'one', '--description', 'the "first"'));
    write(2);
    await done(snapshot('create', 'two'));
    write(9);
    const [one, two] = await listed();
    expect(one).toMatchObject({ name: 'one', description: 'the "first"' });
    expect(one?.diskBytes).toBeGreaterThanOrEqual(8 * 2 ** 20);
    expect(one?.aloneBytes).toBeGreaterThanOrEqual(8 * 2 ** 20);
    expect(two).toMatchObject({ name: 'two' });
    expect((await done(snapshot('load', 'one'))).stdout).toContain('back at "one"');
    expect(holds(1)).toBe(true);
    await done(snapshot('load', 'two'));
    expect(holds(2)).toBe(true);
    const before = (await stat(disk)).blocks;
    expect((await done(snapshot('delete', 'one'))).stdout).toContain('freed');
    expect((await stat(disk)).blocks).toBeLessThan(before);
    expect(holds(2)).toBe(true);
    expect(await names()).toEqual(['two']);
    await done(snapshot('delete', 'two'));
    expect(await names()).toEqual([]);
    expectSound();
    expect(await files()).toEqual(['disk.qcow2', 'snapshots.json', 'spec.json', 'state.json']);
    expect((await stat(join(dirname(disk), 'snapshots.json'))).mode & 0o777).toBe(0o600);
  });

  it.each(['is', 'of', '-- a b', 'ünï 日本 "q" $HOME', "it's,a=b", 'x'.repeat(255), '007'])(
    'may be called %j',
    async (name) => {
      write(1);
      await done(snapshot('create', '--', name));
      write(2);
      expect(await names()).toEqual([name]);
      await done(snapshot('load', '--', name));
      expect(holds(1)).toBe(true);
      await done(snapshot('export', '--output', `${ctx.folder}/`, '--', name));
      await done(snapshot('delete', '--', name));
      expect(await names()).toEqual([]);
    },
  );

  it('are told from their numbers', async () => {
    write(1);
    qemu('qemu-img', 'snapshot', '-c', '2', disk);
    write(2);
    qemu('qemu-img', 'snapshot', '-c', 'other', disk);
    write(3);
    await done(snapshot('load', '2'));
    expect(holds(1)).toBe(true);
    await done(snapshot('delete', '2'));
    expect(await names()).toEqual(['other']);
    await refused(snapshot('create', '3'), 2, 'for instance "s3"');
  });

  it('are refused twice of one name, unless one is to be replaced', async () => {
    write(1);
    await done(snapshot('create', 'one', '--description', 'old'));
    write(2);
    await refused(snapshot('create', 'one'), 4, 'already', '--overwrite');
    await done(snapshot('create', 'one', '--overwrite'));
    expect(await listed()).toMatchObject([{ name: 'one' }]);
    expect((await listed())[0]).not.toHaveProperty('description');
    write(3);
    await done(snapshot('load', 'one'));
    expect(holds(2)).toBe(true);
  });

  it('that are not there are told apart from those that are', async () => {
    await done(snapshot('create', 'before-upgrade'));
    for (const verb of ['load', 'delete', 'export']) {
      await refused(snapshot(verb, 'before-upgrad'), 4, 'did you mean "before-upgrade"?');
      await refused(snapshot(verb, 'zzz'), 4, 'has no snapshot "zzz"', 'zfsdev snapshot list a');
    }
    await refused(snapshot('create', 'x', '--disk', 'hdd'), 4, 'has no disk "hdd"', 'root');
    await refused(zfsdev('snapshot', 'list', 'b'), 4, 'there is no instance "b"');
  });

  it('lose a description that was about another one', async () => {
    await done(snapshot('create', 'one', '--description', 'mine'));
    qemu('qemu-img', 'snapshot', '-d', 'one', disk);
    expect(await listed()).toEqual([]);
    qemu('qemu-img', 'snapshot', '-c', 'one', disk);
    expect((await listed())[0]).not.toHaveProperty('description');
    await writeFile(join(dirname(disk), 'snapshots.json'), '{');
    expect(await names()).toEqual(['one']);
  });

  it('need a running machine for --live, and say both ways out', async () => {
    const start = 'zfsdev start a && zfsdev snapshot create a one --live';
    await refused(
      snapshot('create', 'one', '--live'),
      4,
      start,
      'without --live: zfsdev snapshot create a one',
    );
    await refused(snapshot('create', 'one', '--memory'), 4, `${start} --memory`);
    expect(await names()).toEqual([]);
  });

  it('change nothing under --dry-run', async () => {
    const would = await done(snapshot('create', 'one', '--dry-run'));
    expect(would.stderr).toContain('would take the snapshot "one" of a');
    expect(await names()).toEqual([]);
  });
});

describe('a snapshot', () => {
  it('is admitted only if it fits in the worst case', async () => {
    write(1);
    const poor = zfsdev.with({ ZFSDEV_RESERVE: '100TiB' });
    const words = [
      'a snapshot of "a" doesn\'t fit',
      'the new snapshot of a can still grow by',
      '--overcommit',
    ];
    await refused(poor('snapshot', 'create', 'a', 'one'), 3, ...words);
    expect(await names()).toEqual([]);
    await refused(poor('snapshot', 'create', 'a', 'one', '--overcommit'), 0, 'warning');
    await refused(poor('snapshot', 'export', 'a', 'one', '--output', `${ctx.folder}/`), 3, 'the export of a');
    expect(await files()).toEqual(['disk.qcow2', 'snapshots.json', 'spec.json', 'state.json']);
  });

  it('is not there, in no part, when the host has no room left for it', async () => {
    const words = "qemu-img: Could not create snapshot 'one': -28 (No space left on device)";
    const script = `if [ "$1 $3" = "snapshot -c" ]; then echo "${words}" >&2; exit 1; fi`;
    const full = zfsdev.with({ PATH: await qemuImgWith(ctx.folder, script) });
    await refused(full('snapshot', 'create', 'a', 'one'), 3, "the host's disk was full", 'zfsdev usage');
    expect(await names()).toEqual([]);
    expect(await files()).toEqual(['disk.qcow2', 'spec.json', 'state.json']);
  });

  it('of a file that may not be written to is refused before anything is done', async () => {
    await done(snapshot('create', 'one'));
    const immutable = spawnSync('chattr', ['+i', disk]);
    if (immutable.status !== 0) await chmod(disk, 0o400);
    try {
      for (const args of changes) await refused(snapshot(...args), 1, `${disk} can't be written to`);
      expect(await names()).toEqual(['one']);
    } finally {
      spawnSync('chattr', ['-i', disk]);
    }
  });

  it('of a disk that was removed by hand is refused by name', async () => {
    await rm(disk);
    await refused(snapshot('create', 'one'), 4, '"a" is broken: its disk is missing');
    await refused(snapshot('list'), 1, `${disk} can't be read: it is not there`);
  });

  it('of a disk whose backing file is gone is refused in those words', async () => {
    await done(snapshot('create', 'one'));
    await rm(join(ctx.folder, 'base.qcow2'));
    await refused(snapshot('create', 'two'), 1, 'base.qcow2');
    await refused(snapshot('export', 'one', '--output', `${ctx.folder}/`), 1, 'base.qcow2');
    expect(await names()).toEqual(['one']);
  });

  it.each([
    ['is marked as corrupt', (bytes: Buffer) => bytes.writeBigUInt64BE(bytes.readBigUInt64BE(72) | 2n, 72)],
    [
      'has a first table that leads nowhere',
      (bytes: Buffer) => bytes.writeBigUInt64BE(2n ** 40n, Number(bytes.readBigUInt64BE(40))),
    ],
  ])('of a disk that %s is refused with what to do', async (_, damage) => {
    await done(snapshot('create', 'one'));
    const bytes = await readFile(disk);
    damage(bytes);
    await writeFile(disk, bytes);
    for (const args of changes)
      await refused(snapshot(...args), 1, `qemu-img check '${disk}'`, `qemu-img check -r all '${disk}'`);
    expect((await readFile(disk)).equals(bytes)).toBe(true);
  });

  it('is not loaded under a disk that stands on it by way of another file', async () => {
    const other = await stoppedInstance(ctx.paths, 'b');
    const between = join(ctx.folder, 'between.qcow2');
    await done(snapshot('create', 'one'));
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'qcow2', between, '64M');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', between, '-F', 'qcow2', other.disk, '64M');
    await refused(
      snapshot('load', 'one'),
      4,
      'the disk of "b", which stands on it',
      'zfsdev snapshot export',
    );
  });

  it('is not loaded under a disk that stands on it; to take and to delete one changes nothing for that', async () => {
    const other = await stoppedInstance(ctx.paths, 'b');
    await done(snapshot('create', 'one'));
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'qcow2', other.disk, '64M');
    await refused(snapshot('load', 'one'), 4, 'the disk of "b", which stands on it');
    await done(snapshot('create', 'two'));
    await done(snapshot('delete', 'one'));
  });
});

describe('an export', () => {
  it('is the same as the snapshot, needs no other file, and has a checksum', async () => {
    write(1);
    await done(snapshot('create', 'a/b, c'));
    write(2);
    const target = join(ctx.folder, 'out.qcow2');
    await done(snapshot('export', 'a/b, c', '--output', target));
    const sum = createHash('sha256')
      .update(await readFile(target))
      .digest('hex');
    expect(await readFile(`${target}.sha256`, 'utf8')).toBe(`${sum}  out.qcow2\n`);
    expect(qemu('qemu-img', 'info', target)).not.toContain('backing file');
    expect((await stat(target)).mode & 0o777).toBe(0o600);
    expect(qemu('qemu-io', '-c', 'read -P 1 8M 8M', '-c', 'read -P 3 0 4M', target)).not.toContain('failed');
    await refused(snapshot('export', 'a/b, c', '--output', target), 4, 'already', '--overwrite');
    await done(snapshot('export', 'a/b, c', '--output', target, '--overwrite'));
    await refused(snapshot('export', 'a/b, c', '--output', '/nowhere/x'), 4, 'there is no folder /nowhere');
    expect((await readdir(ctx.folder)).filter((name) => name.includes('part'))).toEqual([]);
    expect(await files()).not.toContain('nbd.sock');
  });

  it('replaces no disk of a machine, whatever was asked for', async () => {
    write(1);
    await done(snapshot('create', 'one'));
    write(2);
    const other = await stoppedInstance(ctx.paths, 'b');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', other.disk, '64M');
    const exported = (path: string): Promise<Result> =>
      snapshot('export', 'one', '--output', path, '--overwrite');
    await refused(exported(disk), 2, "can't be written from itself");
    await refused(exported(join(ctx.folder, 'base.qcow2')), 2, 'which would change under it');
    await refused(exported(other.disk), 4, 'in use as the disk of "b"');
    expect(holds(2)).toBe(true);
    expect(await names()).toEqual(['one']);
  });

  it('leaves a file that appears meanwhile, and a checksum that is there', async () => {
    await done(snapshot('create', 'one'));
    const [out, sum] = [join(ctx.folder, 'out.qcow2'), join(ctx.folder, 'out.qcow2.sha256')];
    await writeFile(sum, 'mine');
    await refused(snapshot('export', 'one', '--output', out), 4, `there is a file ${sum} already`);
    expect(await readFile(sum, 'utf8')).toBe('mine');
    await rm(sum);
    const script = `if [ "$1" = compare ]; then echo mine >'${out}'; fi`;
    const late = zfsdev.with({ PATH: await qemuImgWith(ctx.folder, script) });
    await refused(late('snapshot', 'export', 'a', 'one', '--output', out), 4, out, 'already');
    expect(await readFile(out, 'utf8')).toBe('mine\n');
    expect((await readdir(ctx.folder)).sort()).toEqual(['base.qcow2', 'bin', 'home', 'out.qcow2']);
  });

  it('that is killed leaves nothing that the next one does not take away', async () => {
    await done(snapshot('create', 'one'));
    const out = join(ctx.folder, 'out.qcow2');
    const begun = zfsdev.begin('snapshot', 'export', 'a', 'one', '--output', out);
    await begun.until('Comparing');
    begun.kill('SIGKILL');
    await begun.result;
    await done(snapshot('export', 'one', '--output', out));
    expect((await readdir(ctx.folder)).sort()).toEqual([
      'base.qcow2',
      'home',
      'out.qcow2',
      'out.qcow2.sha256',
    ]);
  });

  it('that is cut off leaves nothing', async () => {
    write(1);
    await done(snapshot('create', 'one'));
    const begun = zfsdev.begin('snapshot', 'export', 'a', 'one', '--output', join(ctx.folder, 'out.qcow2'));
    await begun.until('Comparing');
    begun.kill('SIGINT');
    expect((await begun.result).exitCode).toBe(130);
    expect((await readdir(ctx.folder)).sort()).toEqual(['base.qcow2', 'home']);
  });
});
