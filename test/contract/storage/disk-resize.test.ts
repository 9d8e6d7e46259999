import { chmod, readFile, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { callIn } from '../../support/call.ts';
import { done, refused } from '../../support/outcome.ts';
import {
  MiB,
  at,
  disk,
  folder,
  holds,
  listed,
  own,
  qemu,
  root,
  spec,
  write,
  zfsdev,
} from './stopped-disks.ts';

describe('a resize', () => {
  it('grows qcow2, raw and root, keeps what is on them, and tells what is left to do', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    await done(disk('add', 'blob', '--size', '8MiB', '--type', 'raw'));
    write(own('data.qcow2'), 'qcow2', 1);
    write(own('blob.raw'), 'raw', 2);
    write(root, 'qcow2', 3);
    expect((await done(disk('resize', 'data', '16MiB'))).stdout).toContain('zpool online -e');
    await done(disk('resize', 'blob', '16MiB'));
    expect((await done(disk('resize', 'root', '128MiB'))).stdout).toContain('grows at the next boot');
    expect((await listed()).map(({ virtualBytes }) => virtualBytes)).toEqual([128 * MiB, 16 * MiB, 16 * MiB]);
    expect([
      holds(own('data.qcow2'), 'qcow2', 1),
      holds(own('blob.raw'), 'raw', 2),
      holds(root, 'qcow2', 3),
    ]).toEqual([true, true, true]);
    expect(spec()).toMatchObject({ disk: 128 * MiB, storage: [{ size: 16 * MiB }, { size: 16 * MiB }] });
    const state = JSON.parse(await readFile(join(folder, 'state.json'), 'utf8')) as { diskBound: number };
    expect(state.diskBound).toBeGreaterThanOrEqual(128 * MiB);
  });

  it('never shrinks a disk', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    await refused(disk('resize', 'data', '4MiB'), 2, 'would cut off', 'disks only grow');
    await refused(disk('resize', 'root', '4MiB'), 2, 'would cut off');
    expect((await listed()).map(({ virtualBytes }) => virtualBytes)).toEqual([64 * MiB, 8 * MiB]);
    expect((await done(disk('resize', 'data', '8MiB'))).stdout).toContain('had 8MiB, has 8MiB');
  });

  it('of what is only read is refused', async () => {
    const file = at('medium.iso');
    await writeFile(file, '');
    await truncate(file, MiB);
    await done(disk('add', 'cd', '--file', file, '--media', 'cdrom'));
    await refused(disk('resize', 'cd', '2MiB'), 4, 'only read');
    expect((await disk('list')).stdout).toContain('cdrom');
  });

  it('that was cut off after the file has grown is written down by the same command', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    qemu('qemu-img', 'resize', '-q', own('data.qcow2'), '16M');
    await done(disk('resize', 'data', '16MiB'));
    expect(spec().storage).toMatchObject([{ size: 16 * MiB }]);
  });

  it('of a disk with snapshots leaves them as they are', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    qemu('qemu-img', 'snapshot', '-c', 'one', own('data.qcow2'));
    await done(disk('resize', 'data', '16MiB'));
    expect(qemu('qemu-img', 'check', own('data.qcow2'))).toContain('No errors');
    expect(qemu('qemu-img', 'snapshot', '-l', own('data.qcow2'))).toContain('one');
  });
});

describe('a snapshot', () => {
  it('of before a disk went is told to be no longer whole, and not loaded as if it were', async () => {
    await done(disk('add', 'data', '--size', '8MiB'));
    await done(zfsdev('snapshot', 'create', 'a', 'both'));
    await done(disk('detach', 'data'));
    await refused(zfsdev('snapshot', 'load', 'a', 'both'), 4, 'no longer whole: data', '--disk root');
    await done(disk('attach', 'data'));
    await done(zfsdev('snapshot', 'load', 'a', 'both'));
  });
});

describe('a file that can not be written to', () => {
  it('is refused before anything is done to it', async () => {
    const file = at('fixed.qcow2');
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', file, '8M');
    const before = await readFile(file);
    await chmod(file, 0o400);
    const isRoot = process.getuid?.() === 0;
    if (isRoot) callIn(dirname(file), 'chattr', '+i', file);
    try {
      await refused(disk('add', 'fixed', '--file', file), 1, `can't be written to`);
      await done(disk('add', 'fixed', '--file', file, '--readonly'));
      await refused(disk('resize', 'fixed', '9MiB'), 4, 'only read');
      expect((await readFile(file)).equals(before)).toBe(true);
    } finally {
      if (isRoot) callIn(dirname(file), 'chattr', '-i', file);
    }
  });
});
