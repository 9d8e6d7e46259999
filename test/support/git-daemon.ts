import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { call } from './call.ts';

/** A server of git on a loopback port. */
export interface GitDaemon {
  readonly port: number;
  close(): Promise<void>;
}

/** Commits all of a folder to a repository in it, with this branch and this tag; gives the commit. */
export function commitAll(folder: string, { branch, tag }: { branch: string; tag: string }): string {
  const git = (...args: readonly string[]): string =>
    call('git', '-C', folder, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args);
  git('init', '-q', '-b', branch);
  git('add', '.');
  git('commit', '-q', '-m', 'all of it');
  git('tag', tag);
  return git('rev-parse', 'HEAD').trim();
}

/** Serves all repositories below a folder, by their paths in it. */
export async function gitDaemon(folder: string): Promise<GitDaemon> {
  const port = await freePort();
  const options = ['--verbose', '--export-all', '--reuseaddr', '--listen=127.0.0.1', `--port=${port}`];
  const daemon = spawn('git', ['daemon', ...options, `--base-path=${folder}`, folder], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  await new Promise<void>((ready, failed) => {
    daemon.once('error', failed);
    daemon.once('close', () => failed(new Error(`git daemon ended: ${said}`)));
    // Read to the end, or it would stand still once the pipe is full.
    daemon.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('Ready to rumble')) ready();
    });
  });
  return {
    port,
    close: async () => {
      daemon.kill();
      await once(daemon, 'close');
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}
