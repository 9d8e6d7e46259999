import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createRun } from '../../../src/host/run.ts';
import { runWatched } from '../../../src/host/watched.ts';

let folder: string;
const run = createRun({ env: process.env, dryRun: false });
const ctx = { run, signal: new AbortController().signal };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-watched-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('runWatched', () => {
  it('gives up a program that neither reads nor writes', async () => {
    const hanging = runWatched(ctx, ['sleep', '1000'], { effect: 'read', patience: 200 });
    await expect(hanging).rejects.toMatchObject({
      reason: 'deadline',
      message: expect.stringContaining('sleep has read and written nothing') as string,
    });
  });

  it('lets one go on that does, for many times as long', async () => {
    const file = join(folder, 'file');
    // Each round is far shorter than the patience, and all of them far longer.
    const script = `i=0; while [ $i -lt 40 ]; do echo x >>"$1"; sleep 0.1; i=$((i + 1)); done; echo done`;
    const options = { effect: 'write', patience: 2_000 } as const;
    await expect(runWatched(ctx, ['sh', '-c', script, 'sh', file], options)).resolves.toMatchObject({
      stdout: 'done',
    });
  });

  it('is ended by an interrupt as what it is', async () => {
    const interrupt = new AbortController();
    const signal = interrupt.signal;
    const running = runWatched({ run, signal }, ['sleep', '1000'], {
      effect: 'read',
      onLine: () => undefined,
    });
    interrupt.abort();
    await expect(running).rejects.toMatchObject({ reason: 'interrupted' });
  });

  it('hears of progress that is written over', async () => {
    const lines: string[] = [];
    const script = `printf '  (1.00/100%%)\\r'; printf '  (2.00/100%%)\\r\\n'; printf 'end'`;
    await runWatched(ctx, ['sh', '-c', script], { effect: 'read', onLine: (line) => lines.push(line) });
    expect(lines).toEqual(['  (1.00/100%)', '  (2.00/100%)', 'end']);
  });
});
