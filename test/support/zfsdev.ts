import { execa, type ResultPromise } from 'execa';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const program = resolve(import.meta.dirname, '../../dist/zfsdev.js');

export interface Result {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** One state home and one environment: what a user's shell would be. */
export interface Shell {
  readonly home: string;
  /** Runs zfsdev to its end. */
  (...args: readonly string[]): Promise<Result>;
  /** Starts it and hands out the process, to be signalled. */
  begin(...args: readonly string[]): ResultPromise<{ reject: false }>;
  /** The same with other variables. */
  with(env: Readonly<Record<string, string>>): Shell;
}

export function shell(home: string, env: Readonly<Record<string, string>> = {}): Shell {
  const begin = (...args: readonly string[]): ResultPromise<{ reject: false }> =>
    execa(process.execPath, [program, ...args], {
      reject: false,
      stdin: 'ignore',
      env: { ZFSDEV_HOME: home, NO_COLOR: '1', ...env },
    });
  const run = async (...args: readonly string[]): Promise<Result> => {
    const { exitCode, stdout, stderr } = await begin(...args);
    return { exitCode, stdout, stderr };
  };
  return Object.assign(run, {
    home,
    begin,
    with: (more: Readonly<Record<string, string>>) => shell(home, { ...env, ...more }),
  });
}

/** A fresh state home that is removed afterwards. */
export async function temporaryHome(): Promise<{ home: string; remove: () => Promise<void> }> {
  const home = await mkdtemp(join(tmpdir(), 'zfsdev-test-'));
  return { home, remove: () => rm(home, { recursive: true, force: true }) };
}
