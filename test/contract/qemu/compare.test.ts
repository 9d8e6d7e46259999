import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GiB } from '../../../src/core/bytes.ts';
import { compare } from '../../../src/qemu/compare.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
let disk: string;
let twin: string;

const virtual = 2 * GiB;

/** A disk as machines have it, on a backing file; and one of the same content that stores all of it itself. */
beforeEach(async () => {
  ctx = await testContext({ path: process.env['PATH'] ?? '' });
  const base = join(ctx.folder, 'base.qcow2');
  [disk, twin] = [join(ctx.folder, 'disk.qcow2'), join(ctx.folder, 'twin, "of" it.qcow2')];
  call('qemu-img', 'create', '-q', '-f', 'qcow2', base, String(virtual));
  call('qemu-io', '-c', 'write -P 7 0 4M', '-c', 'write -P 9 1G 4M', base);
  const layout = ['-o', 'extended_l2=on,cluster_size=128k', '-b', base, '-F', 'qcow2'];
  call('qemu-img', 'create', '-q', '-f', 'qcow2', ...layout, disk);
  call('qemu-io', '-c', 'write -P 3 4k 4k', '-c', 'write -z 2M 64k', disk);
  call('qemu-img', 'convert', '-q', '-f', 'qcow2', '-O', 'qcow2', '-c', disk, twin);
});
afterEach(() => ctx.remove());

describe('comparing two disks', () => {
  it('finds them the same, whichever file of a chain the content lies in', async () => {
    expect(await compare(ctx, disk, twin)).toBe(true);
  });

  it.each([
    ['the first sector', 0],
    ['what only the backing file has', GiB],
    ['a part that was made zero', 2 * 2 ** 20],
    ['the last sector', virtual - 512],
  ])('finds a change in %s', async (_, offset) => {
    call('qemu-io', '-c', `write -P 8 ${offset} 512`, twin);
    expect(await compare(ctx, disk, twin)).toBe(false);
  });

  it('tells a disk that cannot be read from one that differs', async () => {
    await copyFile(disk, twin);
    await expect(compare(ctx, twin, join(ctx.folder, 'absent'))).rejects.toMatchObject({ reason: 'process' });
  });
});
