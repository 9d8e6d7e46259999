import { existsSync } from 'node:fs';
import { mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytes, MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { UndoStack } from '../../../src/core/undo.ts';
import { unfinishedFile } from '../../../src/host/paths.ts';
import { checkStorage } from '../../../src/vm/storage-check.ts';
import { createDisk, layOutStorage, tellOfFilesThatStay } from '../../../src/vm/storage-files.ts';
import { fakePrograms } from '../../fakes/programs.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { StorageScene, disk, sizeless, specOf } from './storage-scene.ts';

let scene: StorageScene;
let ctx: TestContext;
beforeEach(async () => {
  scene = await StorageScene.open();
  ctx = scene.ctx;
});
afterEach(() => scene.close());

const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o777;

describe('a disk that is not there', () => {
  it('is made for its owner alone, with its parents, and told; what was made is undone in full', async () => {
    await mkdir(scene.at('vms'));
    const [q, r] = [scene.at('vms', 'deep', 'er', 'a.qcow2'), scene.at('vms', 'b,x.raw')];
    const undo = await scene.layOut(disk('a', { file: q }), disk('b', { type: 'raw', file: r }), disk('c'));
    expect(await Promise.all([q, r].map(mode))).toEqual([0o600, 0o600]);
    expect(await mode(scene.at('vms', 'deep', 'er'))).toBe(0o700);
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
    expect(await scene.files()).toEqual(['vms']);
  });

  it('is made as its format says: clusters, compression, encryption, and what it stands on', async () => {
    const [base, pass] = [scene.at('base.raw'), scene.at('pass')];
    await writeFile(base, Buffer.alloc(2 * MiB, 7));
    await writeFile(pass, 'correct horse', { mode: 0o600 });
    const own = sizeless('a', {
      file: scene.at('a.qcow2'),
      backingFile: base,
      backingFormat: 'raw',
      format: { clusterSize: bytes(MiB), compression: 'zstd', passphraseFile: pass },
    });
    await scene.layOut(own);
    const secret = ['--object', `secret,id=s,file=${pass.replaceAll(',', ',,')}`];
    const found = call(
      'qemu-img',
      ...['info', '--output=json', ...secret, '--image-opts'],
      `driver=qcow2,file.filename=${scene.at('a.qcow2').replaceAll(',', ',,')},encrypt.key-secret=s`,
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
    await writeFile(scene.at('pass'), 'x', { mode: 0o600 });
    const secret = `secret,id=passphrase,file=${scene.at('pass').replaceAll(',', ',,')}`;
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
      const placed = {
        disk: disk('a', { format: { passphraseFile: scene.at('pass') } }),
        path: scene.at(outcome),
      };
      const made = createDisk(own, placed, new UndoStack());
      if (outcome === 'made') await made;
      else await expect(made).rejects.toMatchObject({ reason: 'process' });
      await fakes.settle();
    }
    expect(await scene.files()).toEqual(['made', 'pass']);
  });

  it('is not put over what somebody else has made meanwhile, a link included', async () => {
    const undo = new UndoStack();
    await symlink('/etc/passwd', scene.at('a.qcow2'));
    const before = await readFile('/etc/passwd');
    // Past the check, as by somebody who is quick.
    const placed = { disk: disk('a', { file: scene.at('a.qcow2') }), path: scene.at('a.qcow2') };
    await expect(createDisk(ctx, placed, undo)).rejects.toMatchObject({ reason: 'already-exists' });
    expect(await readFile('/etc/passwd')).toEqual(before);
    expect(await undo.unwind()).toEqual([]);
    expect(await scene.files()).toEqual(['a.qcow2']);
  });

  it('has one creator: the second of two says so, and nothing of its own stays', async () => {
    const placed = { disk: disk('a', { file: scene.at('a.qcow2') }), path: scene.at('a.qcow2') };
    const undos = [new UndoStack(), new UndoStack()];
    const settled = await Promise.allSettled(undos.map((undo) => createDisk(ctx, placed, undo)));
    const failures = settled.flatMap((each): unknown[] => (each.status === 'rejected' ? [each.reason] : []));
    expect(failures).toMatchObject([{ reason: 'already-exists' }]);
    expect(await scene.files()).toEqual(['a.qcow2']);
    // The loser's undo leaves the winner's file.
    const loser = undos[settled.findIndex(({ status }) => status === 'rejected')];
    expect(await loser?.unwind()).toEqual([]);
    expect(await scene.files()).toEqual(['a.qcow2']);
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
      const placed = { disk: disk('a'), path: scene.at('new', 'a.qcow2') };
      const made = createDisk(own, placed, undo);
      const settled = made.catch((error: unknown) => error);
      await expect
        .poll(() => fakes.calls().then((calls) => calls.length), { timeout: 60_000 })
        .toBeGreaterThan(0);
      expect(await scene.files()).toContain(`new/${unfinishedFile('a.qcow2')}`);
      abort.abort();
      expect(await settled).toMatchObject({ reason: 'interrupted' });
      expect(await undo.unwind()).toEqual([]);
      expect(await scene.files()).toEqual([]);
    } finally {
      await fakes.remove();
    }
  });

  it('takes over from a creator that was killed, and nothing of that one stays', async () => {
    await writeFile(unfinishedFile(scene.at('a.qcow2')), 'half');
    await scene.layOut(disk('a', { file: scene.at('a.qcow2') }));
    expect(await scene.files()).toEqual(['a.qcow2']);
  });

  it('is not made anew, empty, in the place of one that the machine had', async () => {
    const file = scene.at('a.qcow2');
    const had = await scene.machine('one', [disk('a', { file })], { storage: { a: file } });
    await expect(layOutStorage(ctx, had, new UndoStack())).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining('is gone, which the machine had') as string,
    });
    expect(await scene.files()).toEqual([]);
  });
});

describe('a file that is there', () => {
  it('is taken as it is, and stays when an up that failed is undone', async () => {
    scene.make('a.qcow2');
    const before = await readFile(scene.at('a.qcow2'));
    const undo = await scene.layOut(disk('a', { file: scene.at('a.qcow2') }));
    await undo.unwind();
    expect(await readFile(scene.at('a.qcow2'))).toEqual(before);
  });

  it('stays when the machine is deleted, and is told; what is half made goes', async () => {
    scene.make('mine.qcow2');
    await writeFile(unfinishedFile(scene.at('half.qcow2')), '');
    const own = [
      disk('a', { file: scene.at('mine.qcow2') }),
      disk('b', { file: scene.at('half.qcow2') }),
      disk('c'),
    ];
    await tellOfFilesThatStay(ctx, await scene.machine('one', own));
    expect(ctx.events).toEqual([
      {
        type: 'notice',
        level: 'info',
        text: `left where they are, as your template names them: ${scene.at('mine.qcow2')}`,
      },
    ]);
    expect(await scene.files()).toEqual(['mine.qcow2']);
  });
});
