import { writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GiB, MiB } from '../../../src/core/bytes.ts';
import { Failure } from '../../../src/core/errors.ts';
import { compactedFile } from '../../../src/host/paths.ts';
import { filesystemOf } from '../../../src/host/free-space.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import { instanceClaims, reserveInstance } from '../../../src/vm/admission.ts';
import type { Driver } from '../../../src/vm/driver.ts';
import { driverFor } from '../../../src/vm/drivers.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done, refused } from '../../support/outcome.ts';
import { shell } from '../../support/zfsdev.ts';

let ctx: TestContext;

beforeEach(async () => {
  ctx = await testContext();
});
afterEach(() => ctx.remove());

describe('what counts against the free space', () => {
  it("is a disk's bound, and what its snapshots stand on beside it", async () => {
    const { disk } = await stoppedInstance(ctx.paths, 'a', { diskBound: GiB });
    call('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1G');
    call('qemu-io', '-c', 'write -P 5 0 8M', disk);
    expect(await instanceClaims(ctx)).toMatchObject([{ what: 'the disk of a', bound: GiB }]);
    call('qemu-img', 'snapshot', '-c', 'first', disk);
    // Both snapshots hold the same 8 MiB, and the second 4 MiB of its own.
    call('qemu-io', '-c', 'write -P 6 16M 4M', disk);
    call('qemu-img', 'snapshot', '-c', 'second', disk);
    const [claim] = await instanceClaims(ctx);
    expect(claim?.bound).toBe(GiB + 12 * MiB);
  });

  it('is the copy that a compaction is writing, too', async () => {
    const { disk } = await stoppedInstance(ctx.paths, 'a', { diskBound: GiB });
    await writeFile(disk, Buffer.alloc(3 * MiB, 1));
    await writeFile(compactedFile(disk), Buffer.alloc(MiB, 1));
    expect(await instanceClaims(ctx)).toMatchObject([
      { what: 'the disk of a', bound: GiB, allocated: 3 * MiB },
      { what: 'the compacted disk of a (temporary)', bound: 3 * MiB, allocated: MiB },
    ]);
  });
});

describe('two commands at once', () => {
  it("can't both take the last gigabytes", async () => {
    const { free } = await filesystemOf(ctx.paths.home);
    // Room for one of them, whose bound is 8 GiB, and half of the other.
    const tight = { ...ctx, env: { ...ctx.env, ZFSDEV_RESERVE: String(free - 12 * GiB) } };
    const driver = (name: string): Driver => ({
      ...driverFor(ctx, { driver: 'qemu' }),
      claims: () =>
        Promise.resolve([{ what: name, path: ctx.paths.instances, bound: 8 * GiB, allocated: 0 }]),
    });
    const settled = await Promise.allSettled(
      ['a', 'b'].map(async (name) =>
        reserveInstance(tight, driver(name), await resolveSpec('zfs-test', { name }), { overcommit: false }),
      ),
    );
    const failures = settled.flatMap((each): unknown[] => (each.status === 'rejected' ? [each.reason] : []));
    expect(failures).toHaveLength(1);
    expect(failures[0]).toBeInstanceOf(Failure);
    expect(failures[0]).toMatchObject({ reason: 'no-space' });
  });
});

describe('a host that is too full', () => {
  it.each([
    ['start', 'running "a"'],
    ['restart', 'running "a"'],
    ['compact', 'the compacted disk of a'],
  ])('%s is refused with what takes what, and what to type', async (verb, what) => {
    const { disk } = await stoppedInstance(ctx.paths, 'a', { diskBound: GiB });
    call('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1G');
    const zfsdev = shell(ctx.paths.home).with({ ZFSDEV_RESERVE: '4000TiB' });
    await refused(
      zfsdev(verb, 'a'),
      3,
      `in the worst case ${what}`,
      /the disk of a can still grow by/,
      /reserve for the host +4000 TiB/,
      '--overcommit',
    );
  });

  it('--overcommit goes on, and says what is at risk', async () => {
    const { disk } = await stoppedInstance(ctx.paths, 'a', { diskBound: GiB });
    call('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1G');
    const zfsdev = shell(ctx.paths.home).with({ ZFSDEV_RESERVE: '4000TiB' });
    const { stderr } = await done(zfsdev('compact', 'a', '--overcommit'));
    expect(stderr).toContain(
      "going on (--overcommit): when the host's disk is full, running guests stand still",
    );
  });

  it('a reserve that is no size is told, not guessed', async () => {
    const plan = shell(ctx.paths.home).with({ ZFSDEV_RESERVE: 'much' })('plan');
    await refused(plan, 2, 'ZFSDEV_RESERVE: "much" is not a size');
  });
});
