import { promisify } from 'node:util';
import { deflateRaw } from 'node:zlib';
import type { FileHandle } from 'node:fs/promises';
import type { DiskUsage } from './disk.ts';
import { readFirstTable, visitSecondTable, type StoredCluster } from '../qemu/qcow2-clusters.ts';
import type { Qcow2Header } from '../qemu/qcow2-header.ts';
import { withQcow2 } from '../qemu/qcow2.ts';

/** More second tables than this are sampled as well, evenly. */
const mostTables = 64;
/** What is compressed for one look in all, in bytes: about a tenth of a second. */
const sampledTogether = 8 * 2 ** 20;
const mostSamples = 48;
const leastSamples = 6;
/** Where a cluster is larger, this much from the middle of it stands for the whole; less where there are many disks. */
const largestSample = 64 * 1024;
const smallestSample = 16 * 1024;
const manyDisks = 16;
const parts = 32;
/** Header, reference counts and first table, as qemu-img lays them out. */
const fixedClusters = 4;

/**
 * Estimates how many bytes of the host `compact` would give back, disk by disk (by path), without a process: clusters spread
 * over each file are compressed by deflate, whose fast levels come within some percent of the zstd that compact uses. Zeros and
 * clusters that belong to nothing are had back whole. A disk that can't be read is left out.
 */
export async function estimateCompact(disks: readonly DiskUsage[]): Promise<Map<string, number>> {
  const size = disks.length > manyDisks ? smallestSample : largestSample;
  const share = Math.floor(sampledTogether / size / disks.length);
  const sampling = { size, count: Math.min(mostSamples, Math.max(leastSamples, share)) };
  const found = new Map<string, number>();
  await Promise.all(
    disks.map(async ({ path, actual }) => {
      try {
        found.set(path, Math.max(0, actual - (await sizeCompacted(path, sampling))));
      } catch {
        // It changed since it was looked at; its row has all that is known.
      }
    }),
  );
  return found;
}

interface Sampling {
  readonly count: number;
  /** Bytes. */
  readonly size: number;
}

async function sizeCompacted(path: string, sampling: Sampling): Promise<number> {
  return withQcow2(path, async (file, header) => {
    if (header.encrypted || header.external) return Infinity;
    const tables = readFirstTable(file.fd, header, header.active);
    const looked = spread(tables, mostTables);
    const plain: StoredCluster[] = [];
    let compressed = 0;
    for (const table of looked) {
      await visitSecondTable(file, header, table, (cluster) => {
        if (cluster.compressed) compressed += cluster.length;
        else if (cluster.parts !== 0) plain.push(cluster);
      });
    }
    const taken = spread(plain, sampling.count);
    const sizes = await Promise.all(taken.map((cluster) => compressedSize(file, header, cluster, sampling)));
    const mean = sizes.reduce((sum, size) => sum + size, 0) / Math.max(1, sizes.length);
    const data = compressed + mean * plain.length;
    const whole = looked.length === 0 ? 0 : (data * tables.length) / looked.length;
    return whole + (tables.length + fixedClusters) * header.clusterSize;
  });
}

/** What one cluster comes to, in bytes; the whole of it where it can't be compressed, nothing where it is all zeros. */
async function compressedSize(
  file: FileHandle,
  header: Qcow2Header,
  cluster: StoredCluster,
  sampling: Sampling,
): Promise<number> {
  const { clusterSize, extendedL2, backing } = header;
  const [from, length] = extendedL2 ? longestRun(cluster.parts) : [0, parts];
  const size = Math.min(sampling.size, (clusterSize / parts) * length);
  const middle = (clusterSize / parts) * (from + length / 2);
  const sample = Buffer.alloc(size);
  await file.read(sample, 0, size, cluster.offset + Math.floor((middle - size / 2) / 512) * 512);
  if (sample.every((byte) => byte === 0)) return 0;
  const ratio = (await deflate(sample, { level })).length / size;
  // What isn't there comes from the backing file, and is written with the rest.
  const share = backing === undefined ? ones(cluster.parts) / parts : 1;
  return Math.min(1, ratio * share) * clusterSize;
}

const level = 4;
const deflate = promisify<Buffer, { level: number }, Buffer>(deflateRaw);

/** So many of them at most, evenly from all over. */
function spread<T>(all: readonly T[], most: number): readonly T[] {
  if (all.length <= most) return all;
  return Array.from({ length: most }, (_, i) => all[Math.floor(((i + 0.5) * all.length) / most)] as T);
}

/** The longest run of ones: where it begins, and how many. */
function longestRun(bits: number): [number, number] {
  let best: [number, number] = [0, 0];
  let length = 0;
  for (let bit = 0; bit <= parts; bit += 1) {
    if (bit < parts && ((bits >>> bit) & 1) === 1) length += 1;
    else {
      if (length > best[1]) best = [bit - length, length];
      length = 0;
    }
  }
  return best;
}

function ones(bits: number): number {
  let count = 0;
  for (let rest = bits >>> 0; rest !== 0; rest >>>= 1) count += rest & 1;
  return count;
}
