import { readFile } from 'node:fs/promises';
import { Failure, hasCode } from '../core/errors.ts';
import type { Run } from './run.ts';

/**
 * A process, told apart from a later one that was given the same pid: the pid and when it started. On Linux the start
 * is `<boot id>:<clock ticks since boot>`, on macOS what `ps -o lstart` prints.
 */
export interface ProcessIdentity {
  readonly pid: number;
  readonly started: string;
}

/** The identity of the process that has this pid now, or undefined if there is none. */
export async function identify(run: Run, pid: number): Promise<ProcessIdentity | undefined> {
  const started = process.platform === 'linux' ? await startedOnLinux(pid) : await startedByPs(run, pid);
  return started === undefined ? undefined : { pid, started };
}

/** This very process. */
export async function ownIdentity(run: Run): Promise<ProcessIdentity> {
  const self = await identify(run, process.pid);
  if (!self) throw new Error('this process is not found');
  return self;
}

/** True if this very process still runs. */
export async function isAlive(run: Run, identity: ProcessIdentity): Promise<boolean> {
  return (await identify(run, identity.pid))?.started === identity.started;
}

async function startedOnLinux(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The program's name stands in parentheses and may hold spaces; field 3 (state) follows the last one.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    return `${boot.trim()}:${fields[19] ?? ''}`;
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ESRCH')) return undefined;
    throw new Failure('process', `process ${pid} can't be looked at`, { cause: error });
  }
}

async function startedByPs(run: Run, pid: number): Promise<string | undefined> {
  const { exitCode, stdout } = await run(['ps', '-o', 'lstart=', '-p', String(pid)], {
    effect: 'read',
    deadline: 10_000,
    accept: [1],
  });
  return exitCode === 0 && stdout.trim() ? stdout.trim() : undefined;
}

/** Bytes of memory that a process has in RAM, what it shares with others included; 0 if it has ended. */
export async function residentSize(run: Run, pid: number): Promise<number> {
  const { exitCode, stdout } = await run(['ps', '-o', 'rss=', '-p', String(pid)], {
    effect: 'read',
    deadline: 10_000,
    accept: [1],
  });
  return exitCode === 0 ? Number(stdout.trim()) * 1024 : 0;
}
