import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Context } from '../host/context.ts';
import { exists, makePrivateFolder, withFile } from '../host/files.ts';
import { lockOpenFile } from '../host/lock.ts';
import { totalOf, type Usage, type UsageQuestion } from './usage.ts';

/** What one look at the disks found, as it is remembered. All sizes in bytes. */
export interface Sample {
  /** Milliseconds since 1970. */
  readonly at: number;
  /** What was looked at: zfsdev's own machines, Lima's as well, or only those that were named. */
  readonly scope: 'own' | 'all' | 'some';
  readonly machines: readonly MachineSample[];
  readonly shared: readonly SharedSample[];
  readonly filesystems: readonly { readonly path: string; readonly free: number; readonly total: number }[];
  /** All that zfsdev's own machines and what they stand on take. */
  readonly total: number;
}

export interface MachineSample {
  readonly name: string;
  readonly driver: 'qemu' | 'lima';
  /** One of Lima's that zfsdev neither made nor adopted; looked at only now and then. */
  readonly foreign?: true;
  /** Of all its disks. */
  readonly actual: number;
  readonly virtual: number;
}

export interface SharedSample {
  readonly what: string;
  readonly key: string;
  readonly actual: number;
}

/** One look as a sample of this moment. */
export function sampleOf(
  { machines, shared, filesystems }: Usage,
  { names, all }: UsageQuestion,
  now = Date.now(),
): Sample {
  return {
    at: now,
    scope: names.length > 0 ? 'some' : all ? 'all' : 'own',
    machines: machines.map(({ name, driver, foreign, disks }) => ({
      name,
      driver,
      ...(foreign ? { foreign } : {}),
      actual: disks.reduce((sum, { actual }) => sum + actual, 0),
      virtual: disks.reduce((sum, { virtual }) => sum + virtual, 0),
    })),
    shared: shared.map(({ what, key, actual }) => ({ what, key, actual })),
    filesystems: filesystems.map(({ path, free, total }) => ({ path, free, total })),
    total: totalOf({
      machines: machines.filter(({ foreign }) => !foreign),
      shared: shared.filter(({ what }) => what !== 'base'),
    }),
  };
}

/** When the file has outgrown this many bytes, what is old is thinned out. */
export const historyBound = 2 ** 20;
/** Whoever holds the lock for longer stands still, and no sample is worth waiting for that. */
const patience = 2_000;

/**
 * Appends a sample to the history in the state home; never fails, since what was asked for is the look itself: a state home
 * that can't be written simply has no history.
 */
export async function recordSample(ctx: Context, sample: Sample): Promise<void> {
  try {
    // Looking at nothing leaves nothing behind.
    if (sample.machines.length === 0 && sample.shared.length === 0 && !exists(ctx.paths.usageHistory)) return;
    await makePrivateFolder(dirname(ctx.paths.usageHistory));
    await withHistory(ctx.paths.usageHistory, async (file) => {
      const length = await append(file, `${lineOf(sample)}\n`);
      if (length <= historyBound) return;
      const { trimHistory } = await import('./history-trim.ts');
      await trimHistory(ctx.paths.usageHistory, historyBound, sample.at);
    });
  } catch {
    // As said above.
  }
}

/**
 * Opens the file and locks it. The lock is on the file itself, which is another one after somebody has trimmed it: then the new one
 * is taken.
 */
async function withHistory(path: string, work: (file: FileHandle) => Promise<void>): Promise<void> {
  const { O_RDWR, O_APPEND, O_CREAT, O_NONBLOCK, O_NOFOLLOW } = constants;
  const signal = AbortSignal.timeout(patience);
  for (;;) {
    const file = await open(path, O_RDWR | O_APPEND | O_CREAT | O_NONBLOCK | O_NOFOLLOW, 0o600);
    try {
      await lockOpenFile(file, signal);
      if ((await file.stat()).ino === (await stat(path)).ino) return await work(file);
    } finally {
      await file.close();
    }
  }
}

/** Appends whole lines, also behind one that was cut off; gives the length of the file in bytes. */
async function append(file: FileHandle, text: string): Promise<number> {
  const { size } = await file.stat();
  const isTorn = size > 0 && (await lastByte(file, size)) !== '\n';
  await file.appendFile(isTorn ? `\n${text}` : text);
  return size + text.length;
}

async function lastByte(file: FileHandle, size: number): Promise<string> {
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
  return buffer.toString('latin1');
}

/** Nothing that zfsdev writes is larger; of a file that is, the end is read. */
const mostRead = 8 * 2 ** 20;

/**
 * All samples that can be read, oldest first. Damaged and cut lines are passed over.
 * @throws Failure `files` if the file is there and can't be read.
 */
export async function readHistory(path: string): Promise<Sample[]> {
  if (!exists(path)) return [];
  const text = await withFile(path, async (file) => {
    const { size } = await file.stat();
    const length = Math.min(size, mostRead);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.toString('utf8', 0, bytesRead);
  });
  return text
    .split('\n')
    .map(sampleFrom)
    .filter((sample) => sample !== undefined)
    .sort((a, b) => a.at - b.at);
}

/** One line of the file: short keys and rows without keys, as there may be thousands. */
export function lineOf({ at, scope, machines, shared, filesystems, total }: Sample): string {
  return JSON.stringify({
    at,
    scope,
    m: machines.map(({ name, driver, foreign, actual, virtual }) => [
      name,
      foreign ? 'foreign' : driver,
      actual,
      virtual,
    ]),
    s: shared.map(({ what, key, actual }) => [what, key, actual]),
    f: filesystems.map(({ path, free, total: size }) => [path, free, size]),
    total,
  });
}

/** The sample of a line, or undefined if it is none. */
function sampleFrom(line: string): Sample | undefined {
  if (line === '') return undefined;
  try {
    const { at, scope, m, s, f, total } = JSON.parse(line) as Record<string, unknown>;
    if (!isSize(at) || !isSize(total)) return undefined;
    if (scope !== 'own' && scope !== 'all' && scope !== 'some') return undefined;
    return {
      at,
      scope,
      total,
      machines: rowsOf(m, 2).map(([name, kind, [actual = 0, virtual = 0]]) => ({
        name,
        driver: kind === 'qemu' ? 'qemu' : 'lima',
        ...(kind === 'foreign' ? { foreign: true } : {}),
        actual,
        virtual,
      })),
      shared: rowsOf(s, 2).map(([what, key, [actual = 0]]) => ({ what, key, actual })),
      filesystems: rowsOf(f, 1).map(([path, , [free = 0, size = 0]]) => ({ path, free, total: size })),
    };
  } catch {
    return undefined;
  }
}

/** Rows of so many words and then sizes. @throws Error if they are anything else. */
function rowsOf(value: unknown, words: 1 | 2): [string, string, number[]][] {
  if (!Array.isArray(value)) throw new Error('no rows');
  return value.map((row: unknown) => {
    if (!Array.isArray(row)) throw new Error('no row');
    const [cells, sizes] = [row.slice(0, words) as unknown[], row.slice(words) as unknown[]];
    if (!cells.every((cell) => typeof cell === 'string') || !sizes.every(isSize)) throw new Error('no row');
    return [cells[0] ?? '', cells[1] ?? '', sizes];
  });
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}
