import { randomBytes } from 'node:crypto';
import { copyFile, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { checkQcow2, headerLength } from '../../../src/zvold/qcow2-header.ts';
import { checkTables, tableBytes } from '../../../src/zvold/qcow2-tables.ts';
import { call, callIn } from '../../support/call.ts';
import { header, type Header } from '../../support/qcow2.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const cluster = 64 * KiB;
/** Not a whole number of clusters, with a hole, something that packs well, and something that does not. */
const content = Buffer.concat([
  randomBytes(300 * KiB),
  Buffer.alloc(700 * KiB),
  Buffer.alloc(200 * KiB, 'zfsdev '),
  randomBytes(100 * KiB + 512),
]);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-tables-'));
  await writeFile(at('content.raw'), content);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const at = (name: string): string => join(folder, name);

async function check(
  path: string,
  signal = new AbortController().signal,
  progress: (done: number) => void = () => undefined,
): Promise<number> {
  const file = await open(path, 'r');
  try {
    const { buffer } = await file.read(Buffer.alloc(headerLength), 0, headerLength, 0);
    return await checkTables(file, (await stat(path)).size, checkQcow2(buffer), { signal, progress });
  } finally {
    await file.close();
  }
}

async function outcomeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'taken';
  } catch (error) {
    if (error instanceof ZvolError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

function convert(name: string, ...options: readonly string[]): string {
  call('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', ...options, at('content.raw'), at(name));
  return at(name);
}

const kinds: readonly (readonly [string, readonly string[]])[] = [
  ['version 3', []],
  ['version 2', ['-o', 'compat=0.10']],
  ['version 2, compressed', ['-c', '-o', 'compat=0.10']],
  ['compressed', ['-c']],
  ['compressed by zstd', ['-c', '-o', 'compression_type=zstd']],
  ['small clusters', ['-o', 'cluster_size=512']],
  ['small clusters, compressed', ['-c', '-o', 'cluster_size=4k']],
  ['large clusters', ['-o', 'cluster_size=2M']],
  ['subclusters', ['-o', 'extended_l2=on,cluster_size=128k']],
  ['metadata made before', ['-o', 'preallocation=metadata']],
];

describe.each(kinds)('a qcow2 of %s', (kind, options) => {
  const name = `${kind.replaceAll(/\W+/g, '-')}.qcow2`;

  it('is taken as a whole, and tells how much lies in it', async () => {
    const path = convert(name, ...options);
    const seen: number[] = [];
    const allocated = await check(path, undefined, (done) => void seen.push(done));
    expect(allocated).toBeGreaterThan(400 * KiB);
    expect(allocated).toBeLessThanOrEqual(content.length);
    const start = (await readFile(path)).subarray(0, headerLength);
    expect(seen.at(-1)).toBe(tableBytes(checkQcow2(start)));
  });

  it('is never taken with less in it than it had, wherever it was cut off', async () => {
    const path = convert(name, ...options);
    const { size } = await stat(path);
    const lengths = [
      ...[size - 1, size - 512, size - 4 * KiB, size - cluster + 1, size - cluster, size - 3 * cluster],
      ...[1 / 8, 1 / 3, 1 / 2, 3 / 4].map((part) => Math.round(size * part)),
    ].filter((length) => length > headerLength && length < size);
    expect(lengths.length).toBeGreaterThan(3);
    let refused = 0;
    for (const length of lengths) {
      await copyFile(path, at('cut.qcow2'));
      await truncate(at('cut.qcow2'), length);
      const outcome = await outcomeOf(check(at('cut.qcow2')));
      if (outcome !== 'taken') {
        expect(outcome).toMatch(
          /^DATA_LOSS: the qcow2 was cut off: it has \d+ bytes, and .* lies from \d+ to \d+$/,
        );
        refused += 1;
        continue;
      }
      // What it lost is nothing that is read, or its reader fails.
      const { status } = spawnSync('qemu-img', ['convert', '-O', 'raw', at('cut.qcow2'), at('back.raw')]);
      if (status === 0)
        expect((await readFile(at('back.raw'))).equals(content), `${length} of ${size}`).toBe(true);
    }
    expect(refused).toBeGreaterThan(1);
  });
});

describe('a qcow2', () => {
  it('whose clusters are marked as zero, or were taken away, has nothing there', async () => {
    call('qemu-img', 'create', '-q', '-f', 'qcow2', at('zero.qcow2'), '8M');
    callIn(folder, 'qemu-io', '-f', 'qcow2', '-c', 'write 0 1M', '-c', 'write -z 0 512k', 'zero.qcow2');
    expect(await check(at('zero.qcow2'))).toBe(512 * KiB);
  });

  it('of 1 TiB with next to nothing in it is looked through', async () => {
    call('qemu-img', 'create', '-q', '-f', 'qcow2', at('large.qcow2'), '1T');
    callIn(folder, 'qemu-io', '-f', 'qcow2', '-c', 'write 1023G 64k', 'large.qcow2');
    expect(await check(at('large.qcow2'))).toBe(64 * KiB);
    const { size } = await stat(at('large.qcow2'));
    await truncate(at('large.qcow2'), size - cluster);
    expect(await outcomeOf(check(at('large.qcow2')))).toContain(
      'the content of byte 1098437885952 lies from',
    );
  });

  it('is not looked through any further once that is called off', async () => {
    call('qemu-img', 'create', '-q', '-f', 'qcow2', at('long.qcow2'), '1T');
    const controller = new AbortController();
    let seen = 0;
    const progress = (): void => {
      seen += 1;
      controller.abort(new Error('called off'));
    };
    await expect(check(at('long.qcow2'), controller.signal, progress)).rejects.toThrow('called off');
    expect(seen).toBe(1);
  });

  const made: readonly (readonly [string, Header, string])[] = [
    ['a first table of 32 GiB', { firstTable: { entries: 2 ** 32 - 1 } }, 'larger than any that QEMU reads'],
    ['a first table that is too short', { firstTable: { entries: 0 } }, 'and its size wants 1'],
    [
      'a first table beyond its end',
      { firstTable: { offset: 100 * cluster } },
      'DATA_LOSS: the qcow2 was cut off',
    ],
    [
      'a first table at no cluster',
      { firstTable: { offset: cluster + 512 } },
      'lies at 66048, which makes no sense',
    ],
    ['no first table', { firstTable: { offset: 0 } }, 'lies at 0, which makes no sense'],
    [
      'a second table beyond its end',
      { firstTable: { first: BigInt(9 * cluster) } },
      'from byte 0 on lies from',
    ],
    ['a second table beyond anything', { firstTable: { first: 2n ** 55n } }, 'from byte 0 on lies from'],
    [
      'a second table at no cluster',
      { firstTable: { first: BigInt(cluster + 1024) } },
      'which makes no sense',
    ],
  ];
  it.each(made)('with %s is refused', async (_, options, words) => {
    await writeFile(at('made.qcow2'), header(MiB, options));
    expect(await outcomeOf(check(at('made.qcow2')))).toContain(words);
  });

  const entries: readonly (readonly [
    string,
    { version?: number; features?: bigint },
    bigint,
    bigint,
    string,
  ])[] = [
    ['content at no cluster', {}, BigInt(cluster + 512), 0n, 'INVALID_ARGUMENT: the qcow2 is not taken'],
    [
      'a mark of version 3 in version 2',
      { version: 2 },
      1n,
      0n,
      'which makes no sense|version 2 does not have',
    ],
    ['packed content beyond anything', {}, (1n << 62n) | (2n ** 53n), 0n, 'DATA_LOSS'],
    ['subclusters that lie nowhere', { features: 16n }, 0n, 1n, 'lies at 0, which makes no sense'],
    ['a subcluster beyond its end', { features: 16n }, BigInt(3 * cluster), 2n ** 31n, 'DATA_LOSS'],
    ['no subcluster in use', { features: 16n }, BigInt(9 * cluster), 0n, '^taken$'],
  ];
  it.each(entries)('with %s is told so', async (_, { version = 3, features = 0n }, entry, parts, words) => {
    const start = header(MiB, { features, firstTable: { first: BigInt(2 * cluster) } });
    start.writeUInt32BE(version, 4);
    const second = Buffer.alloc(cluster);
    second.writeBigUInt64BE(entry, 0);
    if (features !== 0n) second.writeBigUInt64BE(parts, 8);
    await writeFile(at('made.qcow2'), Buffer.concat([start, second]));
    expect(await outcomeOf(check(at('made.qcow2')))).toMatch(new RegExp(words));
  });
});
