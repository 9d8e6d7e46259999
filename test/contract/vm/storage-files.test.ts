import { existsSync } from 'node:fs';
import {
  chmod,
  link,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytes, GiB, MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { UndoStack } from '../../../src/core/undo.ts';
import { filesystemOf } from '../../../src/host/free-space.ts';
import { unfinishedFile } from '../../../src/host/paths.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { DiskDevice, StorageDevice } from '../../../src/template/storage.ts';
import { reserveInstance } from '../../../src/vm/admission.ts';
import { driverFor } from '../../../src/vm/drivers.ts';
import type { Instance } from '../../../src/vm/instance.ts';
import { newState, type State } from '../../../src/vm/state.ts';
import { checkStorage } from '../../../src/vm/storage-check.ts';
import { storageClaims } from '../../../src/vm/storage-claims.ts';
import { createDisk, layOutStorage, tellOfFilesThatStay } from '../../../src/vm/storage-files.ts';
import { fakePrograms } from '../../fakes/programs.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';

let ctx: TestContext;
const at = (...names: string[]): string => join(ctx.folder, ...names);

beforeEach(async () => {
  ctx = await testContext();
});
afterEach(() => ctx.remove());

/** A disk of no size of its own. */
const sizeless = (name: string, more: Partial<DiskDevice> = {}): DiskDevice => ({
  type: 'qcow2',
  name,
  interface: 'virtio',
  media: 'disk',
  readonly: false,
  discard: true,
  ...more,
});
const disk = (name: string, more: Partial<DiskDevice> = {}): DiskDevice =>
  sizeless(name, { size: bytes(64 * MiB), ...more });

async function specOf(name: string, ...storage: StorageDevice[]): Promise<Spec> {
  return { ...(await resolveSpec('zfs-test', { name })), storage };
}

/** A machine as it is just before it starts: its folder, spec and state are there, and perhaps its disk. */
async function machine(
  name: string,
  storage: readonly StorageDevice[],
  state: Partial<State> = {},
): Promise<Instance> {
  const paths = await stoppedInstance(ctx.paths, name, state);
  const spec = await specOf(name, ...storage);
  await writeFile(paths.spec, JSON.stringify(spec));
  return { name: parseName(name), spec, state: { ...newState('qemu'), ...state } };
}

async function layOut(...storage: StorageDevice[]): Promise<UndoStack> {
  const undo = new UndoStack();
  await layOutStorage(ctx, await machine('one', storage), undo);
  return undo;
}

/** Everything below the test's folder but the state home; links are not followed. */
async function files(folder = ctx.folder, above = ''): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const found = await Promise.all(
    entries
      .filter(({ name }) => above !== '' || name !== 'home')
      .map(async (entry) => {
        const name = join(above, entry.name);
        return [name, ...(entry.isDirectory() ? await files(join(folder, entry.name), name) : [])];
      }),
  );
  return found.flat().sort();
}

const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;

describe('a disk that is not there', () => {
  it('is made for its owner alone, with its parents, and told; what was made is undone in full', async () => {
    await mkdir(at('vms'));
    const [q, r] = [at('vms', 'deep', 'er', 'a.qcow2'), at('vms', 'b,x.raw')];
    const undo = await layOut(disk('a', { file: q }), disk('b', { type: 'raw', file: r }), disk('c'));
    expect(await Promise.all([q, r].map(mode))).toEqual([0o600, 0o600]);
    expect(await mode(at('vms', 'deep', 'er'))).toBe(0o700);
    expect((await stat(r)).size).toBe(64 * MiB);
    expect(call('qemu-img', 'info', '--output=json', q)).toMatch(/"virtual-size": 67108864/);
    expect(existsSync(join(ctx.paths.instance(parseName('one')).disks, 'c.qcow2'))).toBe(true);
    const told = ctx.events.flatMap((event) => (event.type === 'step-started' ? [event.title] : []));
    expect(told).toEqual([
      `Creating the qcow2 disk "a", ${q}`,
      `Creating the raw disk "b", ${r}`,
      expect.stringContaining('Creating the qcow2 disk "c"'),
    ]);
    expect(await undo.unwind()).toEqual([]);
    expect(await files()).toEqual(['vms']);
  });

  it('is made as its format says: clusters, compression, encryption, and what it stands on', async () => {
    const [base, pass] = [at('base.raw'), at('pass')];
    await writeFile(base, Buffer.alloc(2 * MiB, 7));
    await writeFile(pass, 'correct horse', { mode: 0o600 });
    const own = sizeless('a', {
      file: at('a.qcow2'),
      backingFile: base,
      backingFormat: 'raw',
      format: { clusterSize: bytes(MiB), compression: 'zstd', passphraseFile: pass },
    });
    await layOut(own);
    const secret = ['--object', `secret,id=s,file=${pass.replaceAll(',', ',,')}`];
    const found = call(
      'qemu-img',
      ...['info', '--output=json', ...secret, '--image-opts'],
      `driver=qcow2,file.filename=${at('a.qcow2').replaceAll(',', ',,')},encrypt.key-secret=s`,
    );
    expect(JSON.parse(found)).toMatchObject({
      'virtual-size': 2 * MiB,
      'cluster-size': MiB,
      encrypted: true,
      'backing-filename': base,
      'backing-filename-format': 'raw',
    });
    expect(found).toContain('zstd');
    // And is taken for what it is when the machine starts again.
    expect(await checkStorage(ctx, await specOf('one', own))).toEqual({ missing: [], notices: [] });
  });

  it('is tried again where LUKS finds no time to measure its hash by, and nothing else is', async () => {
    await writeFile(at('pass'), 'x', { mode: 0o600 });
    const secret = `secret,id=passphrase,file=${at('pass').replaceAll(',', ',,')}`;
    const argv = ['create', '-q', '-f', 'qcow2', '-o', /luks/, '--object', secret, /new/, String(64 * MiB)];
    const words = 'qemu-img: Unable to get accurate CPU usage';
    const calls = [{ argv, stderr: words, exitCode: 1, times: 2 }, { argv }];
    const refused = [{ argv, stderr: 'qemu-img: something else', exitCode: 1, times: 1 }];
    for (const [answers, outcome] of [
      [calls, 'made'],
      [refused, 'failed'],
    ] as const) {
      const fakes = await fakePrograms({
        'qemu-img': { calls: answers },
        setpriv: {
          calls: answers.map((answer) => ({ ...answer, argv: ['--pdeathsig', 'KILL', 'qemu-img', ...argv] })),
        },
      });
      const own = await testContext({ path: fakes.path, folder: ctx.folder });
      const placed = { disk: disk('a', { format: { passphraseFile: at('pass') } }), path: at(outcome) };
      const made = createDisk(own, placed, new UndoStack());
      if (outcome === 'made') await made;
      else await expect(made).rejects.toMatchObject({ reason: 'process' });
      await fakes.settle();
    }
    expect(await files()).toEqual(['made', 'pass']);
  });

  it('is as large at most as the budget counts', async () => {
    for (const clusterSize of [undefined, 512, 2 * MiB]) {
      const format = clusterSize === undefined ? {} : { format: { clusterSize: bytes(clusterSize) } };
      const [claim] = await storageClaims(
        ctx,
        await specOf('one', disk('a', { size: bytes(GiB), ...format })),
      );
      const layout =
        clusterSize === undefined ? 'cluster_size=64k,extended_l2=on' : `cluster_size=${clusterSize}`;
      const measured = call(
        'qemu-img',
        'measure',
        '--output=json',
        '-O',
        'qcow2',
        '-o',
        layout,
        '--size',
        `${GiB}`,
      );
      const bound = (JSON.parse(measured) as { 'fully-allocated': number })['fully-allocated'];
      expect(claim?.bound).toBeGreaterThanOrEqual(bound);
      expect(claim?.bound).toBeLessThan(bound * 1.05);
    }
  });

  it.each([
    ['/etc', '/etc/zfsdev-test.qcow2'],
    ['/usr', '/usr/../usr/share/zfsdev-test.qcow2'],
    ['/boot', '/boot/new/zfsdev-test.qcow2'],
    ['/var', '/var/zfsdev-test.qcow2'],
    ['/root', '/root/zfsdev-test.qcow2'],
  ])("is never made in the system's %s", async (folder, file) => {
    await expect(layOut(disk('a', { file }))).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining(`lies in ${folder}, which is the system's`) as string,
    });
    expect(existsSync(file)).toBe(false);
  });

  it("may be made in root's own home, if that is the user's", async () => {
    const own = { ...ctx, env: { ...ctx.env, HOME: '/root' } };
    const spec = await specOf('one', disk('a', { file: '/root/zfsdev-test/a.qcow2' }));
    if (process.getuid?.() === 0) expect((await checkStorage(own, spec)).missing).toHaveLength(1);
    await expect(checkStorage(ctx, spec)).rejects.toMatchObject({ reason: 'files' });
  });

  it("is never made through a link into the system's folders, or through one that leads nowhere", async () => {
    await symlink('/etc', at('link'));
    await expect(layOut(disk('a', { file: at('link', 'a.qcow2') }))).rejects.toThrow(
      /it leads to \/etc\/a\.qcow2/,
    );
    await symlink(at('nowhere'), at('dangling'));
    await expect(layOut(disk('a', { file: at('dangling') }))).rejects.toThrow(
      /symbolic link that leads nowhere/,
    );
    expect(await files()).toEqual(['dangling', 'link']);
  });

  it('is not put over what somebody else has made meanwhile, a link included', async () => {
    const undo = new UndoStack();
    await symlink('/etc/passwd', at('a.qcow2'));
    const before = await readFile('/etc/passwd');
    // Past the check, as by somebody who is quick.
    const placed = { disk: disk('a', { file: at('a.qcow2') }), path: at('a.qcow2') };
    await expect(createDisk(ctx, placed, undo)).rejects.toMatchObject({ reason: 'already-exists' });
    expect(await readFile('/etc/passwd')).toEqual(before);
    expect(await undo.unwind()).toEqual([]);
    expect(await files()).toEqual(['a.qcow2']);
  });

  it('has one creator: the second of two says so, and nothing of its own stays', async () => {
    const placed = { disk: disk('a', { file: at('a.qcow2') }), path: at('a.qcow2') };
    const undos = [new UndoStack(), new UndoStack()];
    const settled = await Promise.allSettled(undos.map((undo) => createDisk(ctx, placed, undo)));
    const failures = settled.flatMap((each): unknown[] => (each.status === 'rejected' ? [each.reason] : []));
    expect(failures).toMatchObject([{ reason: 'already-exists' }]);
    expect(await files()).toEqual(['a.qcow2']);
    // The loser's undo leaves the winner's file.
    const loser = undos[settled.findIndex(({ status }) => status === 'rejected')];
    expect(await loser?.unwind()).toEqual([]);
    expect(await files()).toEqual(['a.qcow2']);
  });

  it('is refused in the sum of all disks, where each of them alone would fit', async () => {
    const { free } = await filesystemOf(ctx.paths.home);
    const size = bytes(Math.floor((free * 0.6) / MiB) * MiB);
    const tight: TestContext = { ...ctx, env: { ...ctx.env, ZFSDEV_RESERVE: '1B' } };
    const reserve = async (...storage: StorageDevice[]): Promise<State> => {
      const spec = await specOf('one', ...storage);
      const driver = { ...driverFor(tight, spec), claims: () => storageClaims(tight, spec) };
      return reserveInstance(tight, driver, spec, { overcommit: false });
    };
    const raw = (name: string): DiskDevice =>
      disk(name, { type: 'raw', size, file: at('far', `${name}.raw`) });
    await expect(reserve(raw('a'), raw('b'))).rejects.toMatchObject({
      reason: 'no-space',
      detail: expect.stringContaining('the disk "b" of one can still grow by') as string,
    });
    await expect(reserve(raw('a'))).resolves.toMatchObject({ phase: 'creating' });
    // And in the sum over machines: the first one's disk counts before it is there.
    const other = await specOf('two', raw('c'));
    const driver = { ...driverFor(tight, other), claims: () => storageClaims(tight, other) };
    await expect(reserveInstance(tight, driver, other, { overcommit: false })).rejects.toMatchObject({
      reason: 'no-space',
    });
  });

  it('leaves nothing when it fails, or is interrupted in the middle', async () => {
    const abort = new AbortController();
    const argv = ['create', /.*/, /.*/, /.*/, /.*/, /.*/, /.*/, /.*/];
    const fakes = await fakePrograms({
      'qemu-img': {
        calls: [{ argv, hangs: true }],
      },
      setpriv: { calls: [{ argv: ['--pdeathsig', 'KILL', 'qemu-img', ...argv], hangs: true }] },
    });
    try {
      const own = await testContext({ path: fakes.path, signal: abort.signal, folder: ctx.folder });
      const undo = new UndoStack();
      const placed = { disk: disk('a'), path: at('new', 'a.qcow2') };
      const made = createDisk(own, placed, undo);
      const settled = made.catch((error: unknown) => error);
      await expect
        .poll(() => fakes.calls().then((calls) => calls.length), { timeout: 60_000 })
        .toBeGreaterThan(0);
      expect(await files()).toContain(`new/${unfinishedFile('a.qcow2')}`);
      abort.abort();
      expect(await settled).toMatchObject({ reason: 'interrupted' });
      expect(await undo.unwind()).toEqual([]);
      expect(await files()).toEqual([]);
    } finally {
      await fakes.remove();
    }
  });

  it('takes over from a creator that was killed, and nothing of that one stays', async () => {
    await writeFile(unfinishedFile(at('a.qcow2')), 'half');
    await layOut(disk('a', { file: at('a.qcow2') }));
    expect(await files()).toEqual(['a.qcow2']);
  });

  it('is not made anew, empty, in the place of one that the machine had', async () => {
    const file = at('a.qcow2');
    const had = await machine('one', [disk('a', { file })], { storage: { a: file } });
    await expect(layOutStorage(ctx, had, new UndoStack())).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining('is gone, which the machine had') as string,
    });
    expect(await files()).toEqual([]);
  });

  it.each([
    ['it is only read', { readonly: true, file: 'gone' }, 'not-found'],
    [
      'a cdrom has no medium',
      { media: 'cdrom', readonly: true, interface: 'sata', file: 'gone' },
      'not-found',
    ],
    ['its backing file is gone', { backingFile: 'gone' }, 'not-found'],
    ['its passphrase is gone', { format: { passphraseFile: 'gone' } }, 'files'],
    ['a folder on the way is a file', { file: 'file/a.qcow2' }, 'files'],
  ] as const)('is refused where %s', async (_, more, reason) => {
    await writeFile(at('file'), '');
    const paths = Object.fromEntries(
      Object.entries(more).map(([key, value]) => {
        if (key === 'file' || key === 'backingFile') return [key, at(String(value))];
        return [key, key === 'format' ? { passphraseFile: at('gone') } : value];
      }),
    );
    await expect(layOut(disk('a', paths))).rejects.toMatchObject({ reason });
    expect(await files()).toEqual(['file']);
  });

  it('is refused without a size of its own', async () => {
    await expect(layOut(sizeless('a', { file: at('a.qcow2') }))).rejects.toMatchObject({
      reason: 'not-found',
      hint: expect.stringContaining('size') as string,
    });
  });

  it('wants a passphrase that nobody else can read', async () => {
    await writeFile(at('pass'), 'x');
    await chmod(at('pass'), 0o644);
    await expect(layOut(disk('a', { format: { passphraseFile: at('pass') } }))).rejects.toThrow(
      /read by others/,
    );
  });
});

describe('a file that is there', () => {
  const make = (file: string, size = '64M'): string =>
    call('qemu-img', 'create', '-q', '-f', 'qcow2', at(file), size);
  const check = async (...storage: StorageDevice[]): ReturnType<typeof checkStorage> =>
    checkStorage(ctx, await specOf('one', ...storage));

  it('is taken as it is, and stays when an up that failed is undone', async () => {
    make('a.qcow2');
    const before = await readFile(at('a.qcow2'));
    const undo = await layOut(disk('a', { file: at('a.qcow2') }));
    await undo.unwind();
    expect(await readFile(at('a.qcow2'))).toEqual(before);
  });

  it('must be of the format that its template says', async () => {
    await writeFile(at('a.raw'), Buffer.alloc(MiB));
    await expect(check(disk('a', { file: at('a.raw') }))).rejects.toThrow(/is no qcow2/);
    await mkdir(at('folder'));
    await expect(check(disk('a', { file: at('folder') }))).rejects.toThrow(/is a folder/);
    await writeFile(at('b.qcow2'), 'QFI\u00fb and nothing more');
    await expect(check(disk('a', { file: at('b.qcow2') }))).rejects.toMatchObject({ reason: 'files' });
  });

  it('stays raw, whatever its guest has written where a qcow2 would have its header', async () => {
    make('a.raw', '1G');
    await truncate(at('a.raw'), 64 * MiB);
    expect(await check(disk('a', { type: 'raw', file: at('a.raw') }))).toEqual({ missing: [], notices: [] });
  });

  it('is never resized: a smaller one is refused, of a larger one it is told', async () => {
    make('small.qcow2', '32M');
    make('large.qcow2', '128M');
    await expect(check(disk('a', { file: at('small.qcow2') }))).rejects.toMatchObject({
      message: expect.stringContaining('has 32MiB, less than the 64MiB of its template') as string,
      hint: expect.stringContaining('qemu-img resize') as string,
    });
    const { notices } = await check(disk('a', { file: at('large.qcow2') }));
    expect(notices).toEqual([expect.stringContaining('has 128MiB, more than the 64MiB')]);
  });

  it('must stand on what its template says, and on nothing whose format would be guessed', async () => {
    make('base.qcow2');
    make('other.qcow2');
    call('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', at('base.qcow2'), '-F', 'qcow2', at('a.qcow2'));
    const file = at('a.qcow2');
    await expect(check(disk('a', { file, backingFile: at('base.qcow2') }))).resolves.toMatchObject({
      missing: [],
    });
    await expect(check(disk('a', { file, backingFile: at('other.qcow2') }))).rejects.toThrow(
      /stands on .*, not on/,
    );
    await expect(check(disk('a', { file }))).resolves.toMatchObject({ missing: [] });
    call('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', '', file);
    await expect(check(disk('a', { file, backingFile: at('base.qcow2') }))).rejects.toThrow(
      /stands on nothing/,
    );
  });

  it('is in use by no other machine: neither its disks, nor what they stand on', async () => {
    make('theirs.qcow2');
    make('base.qcow2');
    const theirs = [disk('d', { file: at('theirs.qcow2'), backingFile: at('base.qcow2') })];
    const { spec } = await machine('two', theirs);
    const root = ctx.paths.instance(spec.name).disk;
    call('qemu-img', 'create', '-q', '-f', 'qcow2', root, '64M');
    await link(at('theirs.qcow2'), at('same.qcow2'));
    for (const [file, words] of [
      [at('theirs.qcow2'), 'the disk "d" of "two"'],
      [at('same.qcow2'), 'the disk "d" of "two"'],
      [at('base.qcow2'), 'the disk "d" of "two", which stands on it'],
      [root, 'the disk of "two"'],
    ] as const) {
      await expect(check(disk('a', { file }))).rejects.toMatchObject({
        reason: 'already-exists',
        data: { usedAs: words },
      });
    }
    // What nobody writes to may be read by many.
    await expect(check(disk('a', { backingFile: at('base.qcow2') }))).resolves.toMatchObject({});
    await expect(check(disk('a', { backingFile: at('theirs.qcow2') }))).rejects.toMatchObject({
      reason: 'already-exists',
    });
  });

  it("is not another machine's even before that one has made it", async () => {
    await machine('two', [disk('d', { file: at('later.qcow2') })]);
    await expect(check(disk('a', { file: at('later.qcow2') }))).rejects.toMatchObject({
      reason: 'already-exists',
    });
  });

  it('is not one of the same machine already, and no image', async () => {
    make('a.qcow2');
    const twice = [disk('a', { file: at('a.qcow2') }), disk('b', { file: at('a.qcow2'), readonly: true })];
    await expect(check(...twice)).rejects.toMatchObject({ reason: 'already-exists' });
    const image = join(ctx.paths.images, 'digest', 'disk.qcow2');
    await mkdir(join(ctx.paths.images, 'digest'), { recursive: true });
    await writeFile(image, '');
    await expect(check(disk('a', { file: image, readonly: true }))).rejects.toThrow(
      /where zfsdev keeps the images/,
    );
  });

  it('stays when the machine is deleted, and is told; what is half made goes', async () => {
    make('mine.qcow2');
    await writeFile(unfinishedFile(at('half.qcow2')), '');
    const own = [disk('a', { file: at('mine.qcow2') }), disk('b', { file: at('half.qcow2') }), disk('c')];
    await tellOfFilesThatStay(ctx, await machine('one', own));
    expect(ctx.events).toEqual([
      {
        type: 'notice',
        level: 'info',
        text: `left where they are, as your template names them: ${at('mine.qcow2')}`,
      },
    ]);
    expect(await files()).toEqual(['mine.qcow2']);
  });

  it('counts in the budget with what it can still grow, wherever it lies', async () => {
    await writeFile(at('a.raw'), Buffer.alloc(4 * MiB, 1));
    await truncate(at('a.raw'), 64 * MiB);
    const claims = await storageClaims(
      ctx,
      await specOf(
        'one',
        disk('a', { type: 'raw', file: at('a.raw') }),
        disk('b', { file: '/dev/null/x', readonly: true }),
      ),
    );
    expect(claims).toEqual([
      { what: 'the disk "a" of one', path: ctx.folder, bound: 64 * MiB, allocated: 4 * MiB },
    ]);
    await rm(at('a.raw'));
  });
});
