import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { estimateCompact } from '../../../src/storage/compact-estimate.ts';
import { lookAtDisk } from '../../../src/storage/disk.ts';
import { surveyUsage } from '../../../src/storage/usage.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';

let ctx: TestContext;

beforeEach(async () => {
  ctx = await testContext();
});
afterEach(() => ctx.remove());

const MiB = 2 ** 20;

function tool(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  expect({ args, stderr, status }).toEqual({ args, stderr: '', status: 0 });
}

/** Writes content into a new qcow2, zeros as written zeros. */
async function disk(content: Buffer, layout: string, path = join(ctx.folder, 'disk')): Promise<string> {
  const raw = join(ctx.folder, 'raw');
  await writeFile(raw, content);
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', layout, path, '1G');
  tool('qemu-img', 'convert', '-n', '-S', '0', '-O', 'qcow2', raw, path);
  return path;
}

async function estimate(path: string): Promise<number> {
  return (await estimateCompact([await lookAtDisk(path)])).get(path) ?? NaN;
}

/** What the same disk really gives back, less than nothing counted as nothing. */
async function measured(path: string, layout: string): Promise<number> {
  const target = join(ctx.folder, 'compact');
  const options = `${layout},compression_type=zstd`;
  tool('qemu-img', 'convert', '-f', 'qcow2', '-O', 'qcow2', '-c', '-o', options, path, target);
  const [old, made] = [await stat(path), await stat(target)];
  return Math.max(0, (old.blocks - made.blocks) * 512);
}

const text = Buffer.from(
  Array.from(
    { length: 500_000 },
    (_, i) => `${i} a line of a log: ${['ok', 'failed'][i % 2]} ${(i * 7919) % 9973}\n`,
  ).join(''),
).subarray(0, 20 * MiB);
const noise = randomBytes(20 * MiB);
const halfZeros = Buffer.from(noise);
for (let at = 0; at < halfZeros.length; at += 2 * MiB) halfZeros.fill(0, at, at + MiB);

describe.each(['cluster_size=64k', 'extended_l2=on,cluster_size=128k'])('with %s', (layout) => {
  it.each([
    ['incompressible data', noise],
    ['text', text],
    ['half zeros', halfZeros],
    [
      'all kinds',
      Buffer.concat([noise.subarray(0, 8 * MiB), text.subarray(0, 8 * MiB), Buffer.alloc(8 * MiB)]),
    ],
  ])('%s: near what qemu-img comes to', async (_, content) => {
    const path = await disk(content, layout);
    const { actual } = await lookAtDisk(path);
    const [said, real] = [await estimate(path), await measured(path, layout)];
    expect(Math.abs(said - real) / actual).toBeLessThan(0.08);
  });

  it('a disk that is compact already gives back next to nothing', async () => {
    await measured(await disk(text, layout), layout);
    expect(await estimate(join(ctx.folder, 'compact'))).toBeLessThan(MiB);
  });
});

it('clusters that belong to nothing are had back', async () => {
  const path = await disk(noise, 'cluster_size=64k');
  // Blocks behind all that the tables name, as a cut-off write leaves them.
  const { size } = await stat(path);
  await truncate(path, size + 8 * MiB);
  tool('qemu-io', '-f', 'raw', '-c', `write -q -P 5 ${size} ${8 * MiB}`, path);
  expect(await estimate(path)).toBeGreaterThan(7 * MiB);
});

it('is told of stopped machines where it is worth it, and not of others', async () => {
  const layout = 'extended_l2=on,cluster_size=128k';
  await disk(text, layout, (await stoppedInstance(ctx.paths, 'large')).disk);
  await disk(text.subarray(0, MiB), layout, (await stoppedInstance(ctx.paths, 'small')).disk);
  const saved = await disk(text, layout, (await stoppedInstance(ctx.paths, 'with-snapshots')).disk);
  tool('qemu-img', 'snapshot', '-c', 'one', saved);
  const { machines } = await surveyUsage(ctx, { names: [], all: false });
  const said = Object.fromEntries(machines.map(({ name, reclaim }) => [name, reclaim.compact]));
  expect(said['large']).toBeGreaterThan(10 * MiB);
  // compact refuses where snapshots would be lost.
  expect(said).toMatchObject({ small: undefined, 'with-snapshots': undefined });
});
