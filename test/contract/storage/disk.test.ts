import { existsSync, symlinkSync } from 'node:fs';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseName } from '../../../src/core/names.ts';
import { UndoStack } from '../../../src/core/undo.ts';
import { lock } from '../../../src/host/lock.ts';
import { addDisk } from '../../../src/storage/disk-add.ts';
import { diskFromOptions } from '../../../src/storage/disk-definition.ts';
import type { DiskDevice } from '../../../src/template/storage.ts';
import { layOutStorage } from '../../../src/vm/storage-files.ts';
import { readInstance } from '../../../src/vm/store.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done, refused } from '../../support/outcome.ts';
import {
  MiB,
  at,
  ctx,
  disk,
  filesIn,
  folder,
  holds,
  listed,
  names,
  own,
  qemu,
  spec,
  write,
  zfsdev,
} from './stopped-disks.ts';

describe('a disk of a stopped machine', () => {
  it('is made, listed beside root, and there at the next start', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    await done(disk('add', 'blob', '--size', '4MiB', '--type', 'raw', '--interface', 'scsi', '--no-discard'));
    expect(await listed()).toMatchObject([
      { name: 'root', virtualBytes: 64 * MiB, attached: true, plugged: null },
      { name: 'data', virtualBytes: 8 * MiB, attached: true, plugged: null, path: own('data.qcow2') },
      { name: 'blob', virtualBytes: 4 * MiB, attached: true, actualBytes: 0, path: own('blob.raw') },
    ]);
    expect(spec().storage).toMatchObject([
      { name: 'data' },
      { name: 'blob', discard: false, interface: 'scsi' },
    ]);
    expect((await stat(own('data.qcow2'))).mode & 0o777).toBe(0o600);
    expect((await disk('list')).stdout).toContain('at start');
  });

  it('is detached and attached without a loss, and says so when it was so already', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    write(own('data.qcow2'), 'qcow2', 7);
    await done(disk('detach', 'data'));
    expect(spec().storage).toMatchObject([{ name: 'data', detached: true }]);
    expect((await done(disk('detach', 'data'))).stdout).toContain('unplugged already');
    expect((await listed())[1]).toMatchObject({ attached: false });
    await done(disk('attach', 'data'));
    expect((await done(disk('attach', 'data'))).stdout).toContain('plugged in already');
    expect(spec().storage?.[0]).not.toHaveProperty('detached');
    expect(holds(own('data.qcow2'), 'qcow2', 7)).toBe(true);
  });

  it('is told apart from one that is there, and from one that is not', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    await refused(
      disk('add', 'data', '--size', '8MiB'),
      4,
      'has a disk "data" already',
      'zfsdev disk list a',
    );
    await done(disk('detach', 'data'));
    await refused(disk('add', 'data', '--size', '9MiB'), 4, 'zfsdev disk attach a data');
    for (const verb of ['attach', 'detach', 'remove'])
      await refused(disk(verb, 'dat'), 4, 'has no disk "dat"', 'did you mean "data"?', 'root, data');
    await refused(disk('resize', 'zzz', '1GiB'), 4, 'its disks: root, data');
    await refused(disk('detach', 'root'), 4, 'boots from its disk "root"');
    await refused(zfsdev('disk', 'list', 'b'), 4, 'there is no instance "b"');
  });

  it.each(['is', 'of', 'a-b_c', 'x'.repeat(20)])('may be called %j', async (name) => {
    await done(disk('add', name, '--size', '1MiB'));
    await done(disk('resize', name, '2MiB'));
    expect((await listed())[1]).toMatchObject({ name, virtualBytes: 2 * MiB });
    await done(disk('remove', name, '--yes'));
    expect(await names()).toEqual(['root']);
  });

  it.each(['root', '', 'A', 'a b', 'ünï', '../x', 'a,b', 'x'.repeat(21)])(
    'is not called %j',
    async (name) => {
      await refused(disk('add', '--size', '1MiB', '--', name), 2, 'the name');
      expect(await filesIn(own(''))).toEqual([]);
    },
  );

  it('needs what its options say, each of which is named', async () => {
    await refused(disk('add', 'x'), 2, '--size is missing');
    await refused(disk('add', 'x', '--size', '1MiB', '--cluster-size', '5'), 2, '--cluster-size');
    await refused(disk('add', 'x', '--media', 'cdrom'), 2, '--file is missing');
    await refused(
      disk('add', 'x', '--size', '1MiB', '--type', 'raw', '--backing-file', 'y'),
      2,
      '--backing-file',
    );
    expect(spec()).not.toHaveProperty('storage');
  });

  it('is of a file of the user, which stays when it is removed', async () => {
    const file = at('mine.qcow2');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', file, '8M');
    write(file, 'qcow2', 5);
    await done(disk('add', 'mine', '--file', file));
    expect((await listed())[1]).toMatchObject({ virtualBytes: 8 * MiB, path: file });
    await refused(disk('add', 'other', '--file', file), 4, `${file} is in use as the disk "mine" of "a"`);
    expect((await done(disk('remove', 'mine'))).stdout).toContain(`${file} stays`);
    expect(holds(file, 'qcow2', 5)).toBe(true);
    expect(spec()).not.toHaveProperty('storage');
  });

  it('in its own folder is only deleted when that was asked for, its snapshots named', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    qemu('qemu-img', 'snapshot', '-c', 'before it', own('data.qcow2'));
    await refused(disk('remove', 'data'), 2, `Delete ${own('data.qcow2')}`, '"before it"', '--yes');
    expect(await names()).toEqual(['root', 'data']);
    expect((await done(disk('remove', 'data', '--yes'))).stderr).toContain('"before it"');
    expect(await filesIn(own(''))).toEqual([]);
  });

  it('that was removed by hand is listed as such, is not attached anew, and can be forgotten', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    await rm(own('data.qcow2'));
    expect((await listed())[1]).toMatchObject({ problem: 'data.qcow2 is missing' });
    await done(disk('detach', 'data'));
    await refused(disk('attach', 'data'), 1, 'is not there', 'zfsdev disk remove a data');
    await refused(disk('resize', 'data', '9MiB'), 1, 'is not there', 'zfsdev disk remove a data');
    await done(disk('remove', 'data'));
    expect(await names()).toEqual(['root']);
  });

  it.each([
    ['was added', [], 'data.qcow2'],
    ['was written anew', ['change', 'a', 'data', '--type', 'raw'], 'data.raw'],
  ])('that %s and is gone is not made anew, empty, when the machine starts', async (_, words, file) => {
    await done(disk('add', 'data', '--size', '8MiB'));
    if (words.length > 0) await done(zfsdev('disk', ...words));
    await rm(own(file));
    const machine = readInstance(ctx, parseName('a'));
    await expect(layOutStorage(ctx, machine, new UndoStack())).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining('is gone, which the machine had') as string,
    });
    expect(await filesIn(own(''))).toEqual([]);
    await done(disk('remove', 'data'));
    await done(disk('add', 'data', '--size', '8MiB'));
  });

  it('that is no qcow2 any more is listed as such, and not grown', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    const bytes = await readFile(own('data.qcow2'));
    bytes.writeBigUInt64BE(bytes.readBigUInt64BE(72) | 2n, 72);
    await writeFile(own('data.qcow2'), bytes);
    expect((await listed())[1]).toMatchObject({ problem: 'QEMU has marked it as corrupt' });
    await refused(disk('resize', 'data', '9MiB'), 1, 'corrupt', 'qemu-img check');
    await writeFile(own('data.qcow2'), 'x'.repeat(4096));
    expect((await listed())[1]).toMatchObject({ problem: 'it is no qcow2' });
    await refused(disk('resize', 'data', '9MiB'), 1, 'is no qcow2');
  });

  it('is made neither through a link nor in a folder of the system', async () => {
    symlinkSync(at('nowhere'), at('link.qcow2'));
    await refused(disk('add', 'x', '--size', '1MiB', '--file', at('link.qcow2')), 1, 'symbolic link');
    await refused(disk('add', 'x', '--size', '1MiB', '--file', '/etc/zfsdev-test.qcow2'), 1, 'lies in /etc');
    expect(existsSync(at('nowhere'))).toBe(false);
    expect(await names()).toEqual(['root']);
  });

  it('is admitted only if it fits in the worst case, and nothing of it stays if not', async () => {
    const poor = zfsdev.with({ ZFSDEV_RESERVE: '100TiB' });
    const command = ['disk', 'add', 'a', 'data', '--size', '8MiB'];
    await refused(poor(...command), 3, 'the disk "data"', '--overcommit');
    expect(spec()).not.toHaveProperty('storage');
    await refused(poor(...command, '--overcommit'), 0, 'warning');
    await refused(poor('disk', 'resize', 'a', 'data', '9MiB'), 3, 'the disk "data" of a');
    await refused(poor('disk', 'resize', 'a', 'root', '1GiB'), 3, 'the disk "root" of a');
    expect((await listed()).map(({ virtualBytes }) => virtualBytes)).toEqual([64 * MiB, 8 * MiB]);
  });

  it('counts in the worst case of whatever comes after it', async () => {
    await done(disk('add', 'data', '--size', '8MiB', '--type', 'raw'));
    const poor = zfsdev.with({ ZFSDEV_RESERVE: '100TiB' });
    await refused(
      poor('disk', 'add', 'a', 'more', '--size', '1MiB'),
      3,
      'the disk "data" of a can still grow by',
    );
  });

  it('that can not be made is not written down', async () => {
    const locked = at('locked');
    await mkdir(locked);
    await writeFile(join(locked, 'file'), '');
    await refused(
      disk('add', 'x', '--size', '1MiB', '--file', join(locked, 'file', 'x.qcow2')),
      1,
      'the disk "x"',
      locked,
    );
    expect(spec()).not.toHaveProperty('storage');
  });

  it('is changed by one zfsdev at a time', async () => {
    const held = await lock(ctx.paths.lock('instance-a'), 'it');
    try {
      await refused(disk('add', 'data', '--size', '1MiB'), 4, 'is being changed by another zfsdev');
    } finally {
      await held.release();
    }
    expect(await names()).toEqual(['root']);
  });

  it('is given to one machine only, where two are given one file at once', async () => {
    const other = await stoppedInstance(ctx.paths, 'b');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', other.disk, '64M');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', at('mine.qcow2'), '8M');
    // Both are through with their looks, and wait.
    const held = await lock(ctx.paths.lock('budget'), 'it');
    const own = { ...ctx, env: { ...ctx.env, ZFSDEV_RESERVE: '1B' } };
    const adds = ['a', 'b'].map((name) =>
      addDisk(own, parseName(name), diskFromOptions('data', { file: at('mine.qcow2') }), {
        command: 'zfsdev disk add ...',
        overcommit: false,
      }),
    );
    const settled = Promise.allSettled(adds);
    const waiting = (): number =>
      ctx.events.filter(
        (event) => event.type === 'step-started' && event.title.startsWith('Checking the disk space'),
      ).length;
    await expect.poll(waiting, { timeout: 30_000 }).toBe(2);
    await held.release();
    const failures = (await settled).flatMap((each): unknown[] =>
      each.status === 'rejected' ? [each.reason] : [],
    );
    expect(failures).toMatchObject([{ reason: 'already-exists' }]);
  });

  it('that an add which was killed has left is completed by the same command', async () => {
    const half = { ...(await halfAdded('data')), detached: true as const };
    for (const withFile of [false, true]) {
      await writeSpec([half]);
      await rm(own(''), { recursive: true, force: true });
      if (withFile) {
        await mkdir(own(''));
        qemu('qemu-img', 'create', '-q', '-f', 'qcow2', own('data.qcow2'), '8M');
        write(own('data.qcow2'), 'qcow2', 4);
      }
      await done(disk('add', 'data', '--size', '8MiB'));
      expect((await listed())[1]).toMatchObject({ name: 'data', attached: true, virtualBytes: 8 * MiB });
      // What was made is not made again.
      if (withFile) expect(holds(own('data.qcow2'), 'qcow2', 4)).toBe(true);
    }
  });

  it('changes nothing under --dry-run', async () => {
    const would = await done(disk('add', 'data', '--size', '8MiB', '--dry-run'));
    expect(would.stderr).toContain('would give a the disk "data"');
    expect(await filesIn(folder)).toEqual(['disk.qcow2', 'spec.json', 'state.json']);
  });

  it("of one of Lima's is refused, and the driver that has it is named", async () => {
    await stoppedInstance(ctx.paths, 'lima', { driver: 'lima' });
    for (const words of [
      ['list', 'lima'],
      ['add', 'lima', 'x', '--size', '1MiB'],
      ['remove', 'lima', 'x'],
    ])
      await refused(zfsdev('disk', ...words), 4, 'is run by Lima', '--driver qemu');
  });
});

/** What an add writes down first. */
async function halfAdded(name: string): Promise<DiskDevice> {
  await done(disk('add', name, '--size', '8MiB'));
  const found = spec().storage?.[0];
  if (!found) throw new Error('nothing was added');
  return found;
}

async function writeSpec(storage: readonly DiskDevice[]): Promise<void> {
  await writeFile(join(folder, 'spec.json'), JSON.stringify({ ...spec(), storage }));
}
