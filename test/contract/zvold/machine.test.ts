import { closeSync, constants, openSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { thisMachine } from '../../../src/zvold/machine.ts';
import { call } from '../../support/call.ts';

/** As many as libuv has threads for files. */
const threads = Number(process.env['UV_THREADPOOL_SIZE'] ?? 4);

it('the state of a pool is told also where all that is read and written hangs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-machine-'));
  const pipes = Array.from({ length: threads }, (_, at) => join(folder, String(at)));
  call('mkfifo', ...pipes);
  // Each waits for somebody who writes, as for a pool that is suspended.
  const hanging = pipes.map((pipe) => open(pipe, 'r'));
  let ended = false;
  const one = hanging[0]?.then(() => (ended = true));
  try {
    expect(await thisMachine.poolState('zfsdev-none')).toBeUndefined();
    expect(ended).toBe(false);
  } finally {
    const writers = pipes.map((pipe) => openSync(pipe, constants.O_RDWR));
    for (const file of hanging) await (await file).close();
    for (const writer of writers) closeSync(writer);
    await one;
    await rm(folder, { recursive: true });
  }
});
