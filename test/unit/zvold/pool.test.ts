import { beforeEach, expect, it } from 'vitest';
import type { Command, Ended } from '../../../src/zvold/command.ts';
import { newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import { createPool } from '../../../src/zvold/pool.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

let fake: FakeZfs;
let calls: string[];
let answer: Ended;
let keeper: Keeper;

/** Of two volumes, and the zvol of a template. */
const sizes = 'tank/one\t1000\ntank/two\t2000\ntank/.zvold/three\t4000\n';
const done: Ended = { exitCode: 0, stdout: '', stderr: '' };

beforeEach(() => {
  fake = new FakeZfs();
  fake.state = undefined;
  calls = [];
  answer = done;
  const command: Command = (argv) => {
    calls.push(argv.join(' '));
    if (argv[1] === 'create') {
      if (answer.exitCode === 0) fake.state = 'ONLINE';
      return Promise.resolve(answer);
    }
    if (argv[0] === 'zpool') return Promise.resolve({ ...done, stdout: 'ONLINE\t0\n' });
    if (argv.includes('name,volsize')) return Promise.resolve({ ...done, stdout: sizes });
    if (argv.includes('used,available,compressratio'))
      return Promise.resolve({ ...done, stdout: '10\t90\t1.00\n' });
    throw new Error(`unexpected: ${argv.join(' ')}`);
  };
  keeper = newKeeper('tank', command, fake.machine);
});

it('a pool is made as is recommended, and never by force', async () => {
  expect(await createPool(keeper, ['mirror', '/dev/loop1', '/dev/loop2'], { atime: 'on' })).toMatchObject({
    size: 100,
    provisioned: 3000,
    health: 'ONLINE',
  });
  expect(calls[0]).toBe(
    'zpool create -o ashift=12 -o autotrim=on -O compression=lz4 -O xattr=sa -O atime=on tank mirror /dev/loop1 /dev/loop2',
  );
});

it('no pool is made of a device that somebody uses', async () => {
  fake.users.set('/dev/loop2', ['mounted at /srv', 'open in qemu (7)']);
  await expect(createPool(keeper, ['/dev/loop1', '/dev/loop2'], {})).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: 'the device /dev/loop2 is in use: mounted at /srv; open in qemu (7)',
  });
  expect(calls).toEqual([]);
});

it('no pool is made of what ZFS finds to be somebody’s', async () => {
  answer = {
    exitCode: 1,
    stdout: '',
    stderr:
      "invalid vdev specification\nuse '-f' to override the following errors:\n/dev/loop1 is part of exported pool 'old'\n",
  };
  await expect(createPool(keeper, ['/dev/loop1'], {})).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: "/dev/loop1 is part of exported pool 'old'",
  });
});

it.each([[[]], [['-f']], [['/dev/loop1; true']], [['/dev/loop1', '--force']]])(
  'no pool is made of %j',
  async (vdevs) => {
    await expect(createPool(keeper, vdevs, {})).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(calls).toEqual([]);
  },
);

it('no second pool is made of the same name, whoever asks at once', async () => {
  const both = await Promise.allSettled([
    createPool(keeper, ['/dev/loop1'], {}),
    createPool(keeper, ['/dev/loop2'], {}),
  ]);
  expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  expect(calls.filter((call) => call.startsWith('zpool create'))).toHaveLength(1);
});
