import { spawnSync } from 'node:child_process';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GiB, MiB } from '../../../src/core/bytes.ts';
import { compare } from '../../../src/qemu/compare.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;

beforeEach(async () => {
  ctx = await testContext({ path: process.env['PATH'] ?? '' });
});
afterEach(() => ctx.remove());

function qemu(program: 'qemu-img' | 'qemu-io', ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
}

/** A real disk with something at its beginning, and a copy of it under a name that option strings would break on. */
async function twins(virtual: number): Promise<[string, string]> {
  const [a, b] = [join(ctx.folder, 'a.qcow2'), join(ctx.folder, 'b,file.driver=x "y".qcow2')];
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', a, String(virtual));
  qemu('qemu-io', '-c', 'write -P 7 0 1M', a);
  await copyFile(a, b);
  return [a, b];
}

describe('comparing two disks', () => {
  it.each([
    ['of one part', 64 * MiB],
    ['of several parts', 2 * GiB],
    ['that does not come apart evenly', GiB + 512],
  ])('finds the last sector of one %s', async (_, virtual) => {
    const [a, b] = await twins(virtual);
    expect(await compare(ctx, a, b, virtual)).toBe(true);
    qemu('qemu-io', '-c', `write -P 8 ${virtual - 512} 512`, b);
    expect(await compare(ctx, a, b, virtual)).toBe(false);
  });

  it.each([0, 1, 2, 3])('finds a change in quarter %i', async (quarter) => {
    const virtual = 2 * GiB;
    const [a, b] = await twins(virtual);
    qemu('qemu-io', '-c', `write -P 8 ${(quarter * virtual) / 4} 512`, b);
    expect(await compare(ctx, a, b, virtual)).toBe(false);
  });

  it('tells a disk that cannot be read from one that differs', async () => {
    const [a] = await twins(2 * GiB);
    await expect(compare(ctx, a, join(ctx.folder, 'absent'), 2 * GiB)).rejects.toMatchObject({
      reason: 'process',
    });
  });
});
