import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statfs } from 'node:fs/promises';

/** How often the file system is looked at, in milliseconds: often enough for what lies there for seconds. */
const every = 250;

/** One run of a command. */
export interface Watched {
  readonly seconds: number;
  /** The most that the file system lost meanwhile, in bytes: nothing else may write to it. */
  readonly taken: number;
  readonly stdout: string;
}

/** Runs a command, and watches the file system of a folder meanwhile. @throws Error if the command fails */
export async function runWatched(
  argv: readonly [string, ...string[]],
  env: Readonly<Record<string, string>>,
  folder: string,
): Promise<Watched> {
  const [program, ...args] = argv;
  const free = async (): Promise<number> => {
    const { bfree, bsize } = await statfs(folder);
    return bfree * bsize;
  };
  const before = await free();
  let least = before;
  const look = async (): Promise<void> => {
    least = Math.min(least, await free());
  };
  const output = { stdout: '', stderr: '' };
  const begin = performance.now();
  const child = spawn(program, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  const timer = setInterval(() => void look().catch(() => undefined), every);
  try {
    const [status] = (await once(child, 'close')) as [number | null];
    const seconds = (performance.now() - begin) / 1000;
    await look();
    if (status !== 0) throw new Error(`${argv.join(' ')} exited ${String(status)}:\n${output.stderr}`);
    return { seconds, taken: before - least, stdout: output.stdout };
  } finally {
    clearInterval(timer);
  }
}
