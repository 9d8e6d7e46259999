import { readFile } from 'node:fs/promises';

/**
 * Bytes that a process has read and written so far, pages from the cache included: it grows as long as the process gets
 * anywhere. Undefined where the system doesn't tell (only Linux does, of one's own processes).
 */
export async function bytesMovedBy(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/io`, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const field = (name: string): number => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  return field('rchar') + field('wchar');
}
