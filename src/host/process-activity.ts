import { readdir, readFile, stat } from 'node:fs/promises';

/**
 * Bytes that a process has read and written so far, pages from the cache included: it grows as long as the process gets
 * anywhere, but while it waits for the disk (`takenByDisksOf`). Undefined where the system doesn't tell (only Linux does, of one's
 * own processes).
 */
export async function bytesMovedBy(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/io`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const field = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  return field('rchar') + field('wchar');
}

/**
 * What the disks of a process have taken so far, if it waits for them to; undefined if it doesn't. What it wrote may lie in the host's
 * memory, and while that is brought to a slow disk, for minutes, nothing that the process does itself shows.
 */
export async function takenByDisksOf(pid: number): Promise<number | undefined> {
  return (await waitsForDisk(pid)) ? writtenByDisksOf(pid) : undefined;
}

/** Whether any of its threads is in a sleep that only the disk ends: `fsync`, or a write that the full cache holds up. */
async function waitsForDisk(pid: number): Promise<boolean> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const states = await Promise.all(
    threads.map(async (thread) => {
      const text = await readFile(`/proc/${pid}/task/${thread}/stat`, 'utf8').catch(() => '');
      return isUninterruptible(text);
    }),
  );
  return states.includes(true);
}

/** Reads the third field of a `stat`; the second is a name in brackets that may hold anything. */
export function isUninterruptible(text: string): boolean {
  return text.slice(text.lastIndexOf(')') + 1).startsWith(' D');
}

/** Sectors that the disks of its open files have taken so far; pages of the whole host where a file lies on no disk of this host. */
async function writtenByDisksOf(pid: number): Promise<number> {
  const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
  const found = await Promise.all(
    files.map((file) => stat(`/proc/${pid}/fd/${file}`).catch(() => undefined)),
  );
  const devices = new Set(found.filter((each) => each?.isFile()).map((each) => each?.dev ?? 0));
  const sectors = await Promise.all([...devices].map(sectorsWrittenTo));
  const known = sectors.filter((each) => each !== undefined);
  const sum = known.reduce((total, each) => total + each, 0);
  return known.length === devices.size ? sum : sum + (await pagesWritten());
}

async function sectorsWrittenTo(dev: number): Promise<number | undefined> {
  const [major, minor] = [(dev >>> 8) & 0xfff, (dev & 0xff) | ((dev >>> 12) & 0xfff00)];
  const text = await readFile(`/sys/dev/block/${major}:${minor}/stat`, 'utf8').catch(() => undefined);
  // Reads: requests, merges, sectors, ms; then the same of writes (Documentation/block/stat.rst).
  return text === undefined ? undefined : Number(text.trim().split(/\s+/)[6] ?? 0);
}

async function pagesWritten(): Promise<number> {
  const text = await readFile('/proc/vmstat', 'utf8').catch(() => '');
  return Number(/^nr_written (\d+)$/m.exec(text)?.[1] ?? 0);
}
