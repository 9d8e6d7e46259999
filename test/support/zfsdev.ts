import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const program = resolve(import.meta.dirname, '../../dist/zfsdev.js');

export interface Result {
  /** Null if it was killed by a signal. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A zfsdev that still runs, to be watched and signalled. */
export interface Begun {
  readonly kill: (signal: NodeJS.Signals) => void;
  readonly result: Promise<Result>;
  /** Waits until its output holds this text; fails if it ends before. */
  readonly until: (text: string) => Promise<void>;
}

/** One state home and one environment: what a user's shell would be. */
export interface Shell {
  readonly home: string;
  /** Runs zfsdev to its end. */
  (...args: readonly string[]): Promise<Result>;
  begin(...args: readonly string[]): Begun;
  /** The same with other variables. */
  with(env: Readonly<Record<string, string>>): Shell;
}

/** @param file the zfsdev to run, where it isn't this one. */
export function shell(home: string, env: Readonly<Record<string, string>> = {}, file = program): Shell {
  const begin = (...args: readonly string[]): Begun =>
    start([file, ...(process.env['ZFSDEV_TEST_COLD'] ? booted(args) : args)], {
      ...process.env,
      ZFSDEV_HOME: home,
      NO_COLOR: '1',
      ...env,
    });
  const run = (...args: readonly string[]): Promise<Result> => begin(...args).result;
  return Object.assign(run, {
    home,
    begin,
    with: (more: Readonly<Record<string, string>>) => shell(home, { ...env, ...more }, file),
  });
}

/** `ZFSDEV_TEST_COLD` has every machine boot, to tell what forks save (docs/benchmarks.md). */
function booted(args: readonly string[]): readonly string[] {
  const [verb = '', ...rest] = args;
  return ['up', 'run'].includes(verb) && !rest.includes('--cold') ? [verb, '--cold', ...rest] : args;
}

function start(args: readonly string[], env: NodeJS.ProcessEnv): Begun {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
  const output = { stdout: '', stderr: '' };
  const watchers = new Set<() => void>();
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
      for (const watcher of watchers) watcher();
    });
  }
  const result = new Promise<Result>((done, failed) => {
    child.once('error', failed);
    child.once('close', (exitCode) => {
      done({ exitCode, stdout: output.stdout.trimEnd(), stderr: output.stderr.trimEnd() });
      for (const watcher of watchers) watcher();
    });
  });
  const until = (text: string): Promise<void> =>
    new Promise((done, failed) => {
      const look = (): void => {
        const found = (output.stdout + output.stderr).includes(text);
        if (found) done();
        else if (child.exitCode !== null || child.signalCode !== null)
          failed(new Error(`ended without "${text}":\n${output.stderr}`));
        else return;
        watchers.delete(look);
      };
      watchers.add(look);
      look();
    });
  return { kill: (signal) => void child.kill(signal), result, until };
}

/** A fresh state home that is removed afterwards. */
export async function temporaryHome(): Promise<{ home: string; remove: () => Promise<void> }> {
  const home = await mkdtemp(join(tmpdir(), 'zfsdev-test-'));
  return { home, remove: () => rm(home, { recursive: true, force: true }) };
}
