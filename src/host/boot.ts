import { readFile } from 'node:fs/promises';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from './context.ts';

/** Changes at each boot of the host. @throws Failure `files`, `process` */
export async function bootId(ctx: Context): Promise<string> {
  if (process.platform === 'linux') {
    try {
      return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
    } catch (error) {
      throw new Failure('files', `the host's boot id can't be read: ${messageOf(error)}`, { cause: error });
    }
  }
  const { stdout } = await ctx.run(['sysctl', '-n', 'kern.bootsessionuuid'], {
    effect: 'read',
    deadline: 10_000,
    signal: ctx.signal,
  });
  return stdout.trim();
}
