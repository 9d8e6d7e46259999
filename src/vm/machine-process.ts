import { readdir, readFile } from 'node:fs/promises';
import { Failure, hasCode } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { deadlineIn, poll } from '../host/deadline.ts';
import { readIfExists } from '../host/files.ts';

/**
 * The pid of the running QEMU that wrote this pid file, or undefined. A pid alone proves nothing, it may belong to
 * another process by now; QEMU's own arguments name the pid file, so they are asked.
 */
export async function findMachine(ctx: Context, pidFile: string): Promise<number | undefined> {
  const pid = Number(readIfExists(pidFile)?.trim());
  if (!Number.isSafeInteger(pid) || pid < 2) return undefined;
  const args = process.platform === 'linux' ? await argumentsOnLinux(pid) : await argumentsByPs(ctx, pid);
  return args?.includes(pidFile) ? pid : undefined;
}

async function argumentsOnLinux(pid: number): Promise<readonly string[] | undefined> {
  try {
    // Empty for a zombie, which is as good as gone.
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ESRCH')) return undefined;
    throw new Failure('process', `process ${pid} can't be looked at`, { cause: error });
  }
}

async function argumentsByPs(ctx: Context, pid: number): Promise<string | undefined> {
  const { exitCode, stdout } = await ctx.run(['ps', '-ww', '-o', 'command=', '-p', String(pid)], {
    effect: 'read',
    deadline: 10_000,
    accept: [1],
  });
  return exitCode === 0 ? stdout : undefined;
}

/** Waits until the machine has ended. */
export async function waitForEnd(
  ctx: Context,
  pidFile: string,
  milliseconds: number,
  signal: AbortSignal,
): Promise<void> {
  await poll(
    'the end of the machine',
    async () => ((await findMachine(ctx, pidFile)) === undefined ? true : undefined),
    {
      deadline: deadlineIn(milliseconds),
      signal,
      longest: 100,
    },
  );
}

/** Ends the machine at once, as a power cut would, and waits until it is gone, and the room of its memory free. */
export async function killMachine(ctx: Context, pidFile: string): Promise<void> {
  const pid = await findMachine(ctx, pidFile);
  if (pid !== undefined) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (!hasCode(error, 'ESRCH')) throw error;
    }
    // Undoing goes on after an interrupt, so this wait has a signal of its own.
    await waitForEnd(ctx, pidFile, 30_000, new AbortController().signal);
  }
  await settled(pidFile);
}

/** Milliseconds in which a process that is ending has let go of all that it had, on a busy host. */
const lettingGo = 10_000;

/**
 * Waits while the process of a pid file is on its way out: it has no arguments any more, but its threads may still hold
 * its memory, whose file takes its room on the disk until they let go, whoever removes it.
 */
async function settled(pidFile: string): Promise<void> {
  const pid = Number(readIfExists(pidFile)?.trim());
  if (process.platform !== 'linux' || !Number.isSafeInteger(pid) || pid < 2) return;
  const { signal } = new AbortController();
  const deadline = deadlineIn(lettingGo);
  const gone = async (): Promise<true | undefined> => ((await isEnding(pid)) ? undefined : true);
  // Whatever has that pid now is not waited for any longer.
  await poll('the end of its process', gone, { deadline, signal, longest: 50 }).catch(() => undefined);
}

async function isEnding(pid: number): Promise<boolean> {
  try {
    const [[first], threads, status] = await Promise.all([
      argumentsOnLinux(pid).then((args) => args ?? ['gone']),
      readdir(`/proc/${pid}/task`),
      readFile(`/proc/${pid}/status`, 'utf8'),
    ]);
    return first === '' && (threads.length > 1 || !/^State:\s+Z/m.test(status));
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ESRCH')) return false;
    throw error;
  }
}
