import { describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { classify, failureOf } from '../../../src/zvold/words.ts';
import { Zfs } from '../../../src/zvold/zfs.ts';

/** As OpenZFS 2.3 says them. */
const words: readonly (readonly [stderr: string, code: string])[] = [
  ["cannot open 'tank': no such pool", 'UNAVAILABLE'],
  ["cannot open 'tank': dataset does not exist", 'UNAVAILABLE'],
  ["cannot open 'tank': pool I/O is currently suspended", 'UNAVAILABLE'],
  ['cannot iterate filesystems: pool I/O is currently suspended', 'UNAVAILABLE'],
  ["cannot open 'tank': one or more devices is currently unavailable", 'UNAVAILABLE'],
  ["cannot open 'tank': pool is unavailable", 'UNAVAILABLE'],
  ["The ZFS modules are not loaded.\nTry running 'modprobe zfs' as root to load them.", 'UNAVAILABLE'],
  [
    "The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.\n/dev/zfs and /proc/self/mounts are required.",
    'UNAVAILABLE',
  ],
  ['Permission denied the ZFS utilities must be run as root.', 'UNAVAILABLE'],
  ["cannot create 'tank/data': out of space", 'RESOURCE_EXHAUSTED'],
  ["cannot create 'tank/data': quota exceeded", 'RESOURCE_EXHAUSTED'],
  ["cannot create snapshot 'tank/data@a': out of space", 'RESOURCE_EXHAUSTED'],
  ["cannot set property for 'tank/data': size is greater than available space", 'RESOURCE_EXHAUSTED'],
  ["cannot set property for 'tank/data': out of space", 'RESOURCE_EXHAUSTED'],
  ['cannot receive new filesystem stream: out of space', 'RESOURCE_EXHAUSTED'],
  ["cannot create 'tank/data': dataset already exists", 'ALREADY_EXISTS'],
  ["cannot create snapshot 'tank/data@a': dataset already exists", 'ALREADY_EXISTS'],
  ["cannot hold snapshot 'tank/data@a': tag already exists on this dataset", 'ALREADY_EXISTS'],
  ["cannot create 'tank': pool already exists", 'ALREADY_EXISTS'],
  ["cannot open 'tank/data': dataset does not exist", 'NOT_FOUND'],
  ["cannot release hold from snapshot 'tank/data@a': no such tag on this dataset", 'NOT_FOUND'],
  ['could not find any snapshots to destroy; check snapshot names.', 'NOT_FOUND'],
  ["cannot destroy 'tank/data': dataset is busy", 'FAILED_PRECONDITION'],
  [
    "cannot destroy 'tank/data': volume has children\nuse '-r' to destroy the following datasets:\ntank/data@a",
    'FAILED_PRECONDITION',
  ],
  [
    "cannot destroy 'tank/data@a': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/copy",
    'FAILED_PRECONDITION',
  ],
  ['cannot destroy snapshot tank/data@a: dataset is busy', 'FAILED_PRECONDITION'],
  [
    "cannot rollback to 'tank/data@a': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\ntank/data@b",
    'FAILED_PRECONDITION',
  ],
  ["cannot export 'tank': pool is busy", 'FAILED_PRECONDITION'],
  [
    'cannot receive incremental stream: destination tank/data has been modified\nsince most recent snapshot',
    'FAILED_PRECONDITION',
  ],
  ["cannot set property for 'tank/data': pool is read-only", 'FAILED_PRECONDITION'],
  [
    "invalid vdev specification\nuse '-f' to override the following errors:\n/dev/loop3 is part of active pool 'testpool'",
    'FAILED_PRECONDITION',
  ],
  [
    "invalid vdev specification\nuse '-f' to override the following errors:\n/dev/loop3 contains a filesystem of type 'ext4'",
    'FAILED_PRECONDITION',
  ],
  [
    'invalid vdev specification\nthe following errors must be manually repaired:\n/dev/vda1 is currently mounted on /',
    'FAILED_PRECONDITION',
  ],
  [
    "cannot create 'tank': one or more vdevs refer to the same device, or one of\nthe devices is part of an active md or lvm device",
    'FAILED_PRECONDITION',
  ],
  ["cannot create 'tank/data': invalid property 'volsize'", 'INVALID_ARGUMENT'],
  ["cannot create 'tank/data': 'volblocksize' must be power of 2 from 512B to 128KB", 'INVALID_ARGUMENT'],
  [
    "cannot set property for 'tank/data': 'volsize' must be a multiple of volume block size (16K)",
    'INVALID_ARGUMENT',
  ],
  ["cannot create 'tank/data': name is too long", 'INVALID_ARGUMENT'],
  ["cannot destroy 'tank/data': I/O error", 'DATA_LOSS'],
  ['internal error: cannot iterate: Unknown error 1024', 'INTERNAL'],
  // Whatever their volumes are called.
  ["cannot open 'tank/mounted': dataset does not exist", 'NOT_FOUND'],
  ["cannot open 'tank/data@readonly': dataset does not exist", 'NOT_FOUND'],
  ["cannot open 'tank/insufficient': dataset does not exist", 'NOT_FOUND'],
  ["cannot create 'tank/out of space': dataset already exists", 'ALREADY_EXISTS'],
  ["cannot open 'mounted': dataset does not exist", 'UNAVAILABLE'],
  ['cannot destroy snapshot tank/data@insufficient: dataset is busy', 'FAILED_PRECONDITION'],
  [
    "cannot destroy 'tank/data': volume has children\nuse '-r' to destroy the following datasets:\ntank/data@insufficient",
    'FAILED_PRECONDITION',
  ],
];

describe('what ZFS says', () => {
  it.each(words)('"%s" means %s', (stderr, code) => {
    expect(classify(`${stderr}\n`).code).toBe(code);
  });

  it('is told in its first line, or in those below a heading', () => {
    expect(classify("cannot destroy 'tank/data': volume has children\nuse '-r' ...\n").message).toBe(
      "cannot destroy 'tank/data': volume has children",
    );
    expect(
      classify(
        "invalid vdev specification\nuse '-f' to override the following errors:\n/dev/a is part of active pool 'x'\n",
      ).message,
    ).toBe("/dev/a is part of active pool 'x'");
    expect(classify('').message).toContain('did not say why');
  });

  it.each([
    [28, 'RESOURCE_EXHAUSTED'],
    [122, 'RESOURCE_EXHAUSTED'],
    [17, 'ALREADY_EXISTS'],
    [16, 'FAILED_PRECONDITION'],
    [2, 'NOT_FOUND'],
    [999, 'INTERNAL'],
  ])('as the number %d of a channel program means %s', (number, code) => {
    expect(failureOf('it', number)).toMatchObject({ code });
  });
});

describe('"does not exist"', () => {
  const missing = "cannot open 'tank/data': dataset does not exist\n";
  const zfs = (confirm: () => Promise<void>): Zfs =>
    new Zfs(() => Promise.resolve({ exitCode: 1, stdout: '', stderr: missing }), confirm);

  it('is so only while the pool is there', async () => {
    await expect(zfs(() => Promise.resolve()).ask('zfs', 'list')).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    const away = (): Promise<void> => Promise.reject(new ZvolError('UNAVAILABLE', 'it went away'));
    await expect(zfs(away).ask('zfs', 'list')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(zfs(away).change('zfs', 'destroy')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});

describe('lines', () => {
  it('are whole however they come', async () => {
    const zfs = new Zfs((_, { onOutput }) => {
      for (const piece of ['a\t', '1\nb\t2', '\nc', '\t3\n']) onOutput?.(piece);
      return Promise.resolve({ exitCode: 0, stdout: '', stderr: '' });
    });
    expect(await zfs.ask('zfs', 'list')).toEqual([
      ['a', '1'],
      ['b', '2'],
      ['c', '3'],
    ]);
  });

  it('of a question that failed are no answer', async () => {
    const zfs = new Zfs((_, { onOutput }) => {
      onOutput?.('a\t1\n');
      return Promise.resolve({ exitCode: 1, stdout: '', stderr: 'cannot iterate: I/O error\n' });
    });
    await expect(zfs.ask('zfs', 'list')).rejects.toMatchObject({ code: 'DATA_LOSS' });
  });
});

describe('a channel program', () => {
  const answering = (exitCode: number, stdout: string, stderr: string): { zfs: Zfs; calls: string[] } => {
    const calls: string[] = [];
    const zfs = new Zfs((argv, { input }) => {
      calls.push(`${argv.join(' ')} < ${input}`);
      return Promise.resolve({ exitCode, stdout, stderr });
    });
    return { zfs, calls };
  };

  it('is given on standard input, with its words, and gives what it returned', async () => {
    const { zfs, calls } = answering(0, '{"return":{"outcome":"gone"}}\n', '');
    expect(await zfs.program('tank', 'script', 'a', '"\nä')).toEqual({ outcome: 'gone' });
    const argv = String.raw`local argv = { "\097", "\034\010\195\164" }`;
    expect(calls).toEqual([`zfs program -j tank - < ${argv}\nscript`]);
  });

  it('that is not known to zfs is not tried again', async () => {
    const { zfs, calls } = answering(2, '', "unrecognized command 'program'\n");
    expect(await zfs.program('tank', 'script')).toBeUndefined();
    expect(await zfs.program('tank', 'script')).toBeUndefined();
    expect(calls).toHaveLength(1);
  });

  it('that fails leaves its work to be done in another way', async () => {
    const { zfs } = answering(1, '', 'Channel program execution failed:\nTimed out.\n');
    expect(await zfs.program('tank', 'script')).toBeUndefined();
  });

  it('of a pool that is gone says so', async () => {
    const { zfs } = answering(1, '', "cannot open 'tank': no such pool\n");
    await expect(zfs.program('tank', 'script')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
