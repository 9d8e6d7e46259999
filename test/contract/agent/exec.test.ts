import { createHash } from 'node:crypto';
import { chmod, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Readable, Writable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AgentChannel } from '../../../src/guest/agent-channel.ts';
import { failure, quick, startTestAgent, type TestAgent } from './support.ts';

let agent: TestAgent;
let channel: AgentChannel;

beforeAll(async () => {
  agent = await startTestAgent({ arguments: ['--grace', '300'] });
  channel = agent.channel();
});
afterAll(() => agent.remove());

const sh = (script: string, ...words: string[]): string[] => ['sh', '-c', script, 'sh', ...words];

/** Waits until a condition holds; the test's own time limit ends it. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await delay(10);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('exec', () => {
  it('gives output, error and exit code apart', async () => {
    const result = await channel.exec(sh('echo out; echo err >&2; exit 7'), quick);
    expect(result).toEqual({ exitCode: 7, stdout: 'out', stderr: 'err' });
  });

  it('hands over words as they are', async () => {
    const words = ['', ' ', 'a b', "it's", '$HOME', '*', '-n', 'line\nfeed', 'ü', '\\'];
    const { stdout } = await channel.exec(sh('for w; do printf "<%s>" "$w"; done', ...words), quick);
    expect(stdout).toBe(words.map((word) => `<${word}>`).join(''));
  });

  it("has root's environment, and what is added to it", async () => {
    const { stdout } = await channel.exec(['env'], { ...quick, env: { EXTRA: 'a b' } });
    const env = stdout.split('\n');
    expect(env).toContain(`HOME=${join(agent.root, 'root')}`);
    expect(env).toContain('PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin');
    expect(env).toContain('EXTRA=a b');
    const where = await channel.exec(['pwd'], { ...quick, cwd: '/usr' });
    expect(where.stdout).toBe('/usr');
  });

  it('tells what can not be run, as a shell does', async () => {
    const script = join(agent.root, 'script');
    await writeFile(script, 'x');
    await chmod(script, 0o644);
    const missing = await channel.exec(['no-such-program'], quick);
    expect(missing.exitCode).toBe(127);
    expect(missing.stderr).toContain('no-such-program: command not found');
    expect((await channel.exec([script], quick)).exitCode).toBe(126);
    expect((await channel.exec(['/'], quick)).exitCode).toBe(126);
    const cwd = await channel.exec(['true'], { ...quick, cwd: '/no/such' });
    expect(cwd.exitCode).toBe(126);
    expect(cwd.stderr).toContain('/no/such');
    const long = await channel.exec(['true', 'x'.repeat(1_000_000)], quick);
    expect(long).toMatchObject({ exitCode: 126, stderr: 'zfsdev: true: the arguments are too long' });
  });

  it('gives 128 + n after signal n', async () => {
    expect((await channel.exec(sh('kill -KILL $$'), quick)).exitCode).toBe(137);
    expect((await channel.exec(sh('kill -TERM $$'), quick)).exitCode).toBe(143);
  });

  it('gives commands real pipes', async () => {
    const result = await channel.exec(sh('cat /dev/stdin >/dev/stdout; echo err >/dev/stderr'), {
      ...quick,
      input: 'through',
    });
    expect(result).toEqual({ exitCode: 0, stdout: 'through', stderr: 'err' });
  });

  it('gives input, its end, and no input at once', async () => {
    expect((await channel.exec(['cat'], { ...quick, input: 'text' })).stdout).toBe('text');
    expect((await channel.exec(['cat'], { ...quick, input: '' })).stdout).toBe('');
    expect((await channel.exec(['cat'], quick)).stdout).toBe('');
    const bytes = Uint8Array.from({ length: 3_000_000 }, (_, index) => index % 251);
    const { stdout } = await channel.exec(['sha256sum'], { ...quick, input: bytes });
    expect(stdout.split(' ')[0]).toBe(createHash('sha256').update(bytes).digest('hex'));
  });

  it('is not held up by input that the command does not take', async () => {
    const input = Buffer.alloc(20_000_000);
    expect((await channel.exec(['true'], { ...quick, input })).exitCode).toBe(0);
    expect((await channel.exec(sh('exec <&-; sleep 0.2; echo on'), { ...quick, input })).stdout).toBe('on');
  });

  it('waits for the output, also of what the command left behind', async () => {
    const { stdout } = await channel.exec(sh('(sleep 0.3; echo late) & echo soon'), quick);
    expect(stdout).toBe('soon\nlate');
  });

  it('does not feed later commands to what an earlier one left behind', async () => {
    const left = await channel.exec(sh('exec 3<&0; setsid sleep 20 <&3 >/dev/null 2>&1 & echo $!'), quick);
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, n) => channel.exec(['cat'], { ...quick, input: `${n}` })),
    );
    process.kill(Number(left.stdout), 'SIGKILL');
    expect(results.map(({ stdout }) => stdout)).toEqual(results.map((_, n) => `${n}`));
  });

  it('runs 64 at once, and 64 again', async () => {
    for (let round = 0; round < 2; round += 1) {
      const results = await Promise.all(
        Array.from({ length: 64 }, (_, n) => channel.exec(sh(`sleep 0.05; echo ${n}; exit ${n}`), quick)),
      );
      expect(results).toEqual(results.map((_, n) => ({ exitCode: n, stdout: `${n}`, stderr: '' })));
    }
  });

  it('takes no memory that stays: descriptors and FIFOs are given back', async () => {
    const descriptors = async (): Promise<number> => (await readdir(`/proc/${agent.process.pid}/fd`)).length;
    await channel.exec(['true'], quick);
    const before = await descriptors();
    for (let n = 0; n < 30; n += 1) await channel.exec(['cat'], { ...quick, input: 'x' });
    await until(async () => (await descriptors()) <= before + 2);
  });

  it('refuses an output beyond its limit', async () => {
    const told = await failure(channel.exec(['head', '-c', '80000000', '/dev/zero'], quick));
    expect(told.message).toContain('64 MiB');
  });
});

describe('the end of a command', () => {
  it('comes by the deadline, and the whole process group with it', async () => {
    const pidFile = join(agent.root, 'pids');
    const script = 'trap "" HUP; sleep 60 & echo $$ $! >"$1.new"; mv "$1.new" "$1"; wait; wait; sleep 60';
    const told = await failure(channel.exec(sh(script, pidFile), { ...quick, deadline: 700 }));
    expect(told.reason).toBe('deadline');
    const { readFile } = await import('node:fs/promises');
    const pids = (await readFile(pidFile, 'utf8')).trim().split(' ').map(Number);
    expect(pids).toHaveLength(2);
    await until(() => !pids.some(isRunning));
  });

  it('comes by the signal', async () => {
    const interruption = new AbortController();
    const running = channel.exec(sh('echo $$ >"$1"; exec sleep 60', join(agent.root, 'pid')), {
      deadline: 0,
      signal: interruption.signal,
    });
    setTimeout(() => interruption.abort(), 200);
    expect((await failure(running)).reason).toBe('interrupted');
  });

  it('comes though its input is stuck', async () => {
    const told = await failure(
      channel.exec(sh('echo $$ >"$1"; exec sleep 60', join(agent.root, 'stuck')), {
        ...quick,
        deadline: 500,
        input: Buffer.alloc(10_000_000),
      }),
    );
    expect(told.reason).toBe('deadline');
    const { readFile } = await import('node:fs/promises');
    const pid = Number(await readFile(join(agent.root, 'stuck'), 'utf8'));
    await until(() => !isRunning(pid));
  });

  it('is told apart from a connection that is lost', async () => {
    const other = await startTestAgent();
    try {
      const running = failure(other.channel().exec(['sleep', '60'], quick));
      setTimeout(() => other.process.kill('SIGKILL'), 300);
      const told = await running;
      expect(told).toMatchObject({ reason: 'guest', data: { channel: 'connection-lost' } });
      expect(told.hint).toContain('zfsdev logs zfs-test');
    } finally {
      await other.remove();
    }
  });
});

/** Streams for attach that count, hash and may be slow. */
function counting(pauseEach = 0): { stream: Writable; count: () => number; hash: () => string } {
  let count = 0;
  const hash = createHash('sha256');
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      count += chunk.length;
      hash.update(chunk);
      if (pauseEach > 0) setTimeout(done, pauseEach);
      else done();
    },
  });
  return { stream, count: () => count, hash: () => hash.digest('hex') };
}

describe('attach', () => {
  const none = (): Readable => Readable.from([]);

  it('passes a big binary through both ways, in bounded memory', async () => {
    const size = 512 * 1024 * 1024;
    const piece = Buffer.from(Array.from({ length: 65_537 }, (_, index) => (index * 7) % 256));
    const sent = createHash('sha256');
    function* pieces(): Generator<Buffer> {
      for (let left = size; left > 0; left -= piece.length) {
        const chunk = left < piece.length ? piece.subarray(0, left) : piece;
        sent.update(chunk);
        yield chunk;
      }
    }
    const [stdout, stderr] = [counting(), counting()];
    const streams = { stdin: Readable.from(pieces()), stdout: stdout.stream, stderr: stderr.stream };
    const before = process.memoryUsage.rss();
    const code = await agent.channel({ streams }).attach(['cat'], { tty: false, signal: quick.signal });
    expect(code).toBe(0);
    expect(stdout.count()).toBe(size);
    expect(stdout.hash()).toBe(sent.digest('hex'));
    expect(process.memoryUsage.rss() - before).toBeLessThan(200 * 1024 * 1024);
    const status = await channel.exec(['cat', `/proc/${agent.process.pid}/status`], quick);
    expect(Number(/VmHWM:\s+(\d+)/.exec(status.stdout)?.[1])).toBeLessThan(300 * 1024);
  });

  it('goes no faster than its reader', async () => {
    const slow = counting(20);
    const streams = { stdin: none(), stdout: slow.stream, stderr: counting().stream };
    const before = await channel.exec(
      ['awk', '/VmRSS/{print $2}', `/proc/${agent.process.pid}/status`],
      quick,
    );
    const interruption = new AbortController();
    const running = failure(
      agent.channel({ streams }).attach(['cat', '/dev/zero'], { tty: false, signal: interruption.signal }),
    );
    await delay(700);
    const after = await channel.exec(
      ['awk', '/VmRSS/{print $2}', `/proc/${agent.process.pid}/status`],
      quick,
    );
    expect(slow.stream.writableLength).toBeLessThan(1024 * 1024);
    expect(Number(after.stdout) - Number(before.stdout)).toBeLessThan(50 * 1024);
    interruption.abort();
    expect((await running).reason).toBe('interrupted');
  });

  it('ends quietly when its reader has gone, and so does the command', async () => {
    const stdout = new Writable({
      write: (_chunk, _encoding, done) => done(Object.assign(new Error('EPIPE'), { code: 'EPIPE' })),
    });
    const pidFile = join(agent.root, 'yes');
    const streams = { stdin: none(), stdout, stderr: counting().stream };
    const code = await agent
      .channel({ streams })
      .attach(sh('echo $$ >"$1"; exec yes', pidFile), { tty: false, signal: quick.signal });
    expect(code).toBe(141);
    const { readFile } = await import('node:fs/promises');
    const pid = Number(await readFile(pidFile, 'utf8'));
    await until(() => !isRunning(pid));
  });

  it('passes an interrupt on, so that the command can tidy up', async () => {
    const mark = join(agent.root, 'tidied');
    const stdout = counting();
    const interruption = new AbortController();
    const streams = {
      stdin: new Readable({ read: () => undefined }),
      stdout: stdout.stream,
      stderr: counting().stream,
    };
    const running = failure(
      agent
        .channel({ streams })
        .attach(sh('trap "echo >$1; exit 3" INT; echo go; while :; do sleep 0.1; done', mark), {
          tty: false,
          signal: interruption.signal,
        }),
    );
    await until(() => stdout.count() > 0);
    interruption.abort();
    expect((await running).reason).toBe('interrupted');
    expect(await readdir(agent.root)).toContain('tidied');
  });

  it('ends with its command though its input stays open', async () => {
    const stdin = new Readable({ read: () => undefined });
    const streams = { stdin, stdout: counting().stream, stderr: counting().stream };
    const code = await agent.channel({ streams }).attach(sh('exit 5'), { tty: false, signal: quick.signal });
    expect(code).toBe(5);
    expect(stdin.isPaused()).toBe(true);
  });
});
