import { existsSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Context } from '../../../src/host/context.ts';
import { lock } from '../../../src/host/lock.ts';
import type { InstancePaths } from '../../../src/host/paths.ts';
import { ownIdentity, type ProcessIdentity } from '../../../src/host/process-identity.ts';
import { parseName } from '../../../src/core/names.ts';
import { reap } from '../../../src/vm/disposable.ts';
import { newState, type State } from '../../../src/vm/state.ts';
import { instanceLock } from '../../../src/vm/store.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { processOf } from '../../support/running.ts';

const name = parseName('run-zfs-test-0a1b2c');
/** A process that has ended: this one's pid, given out before. */
let gone: ProcessIdentity;
let ctx: TestContext;
let paths: InstancePaths;

beforeEach(async () => {
  ctx = await testContext();
  gone = { pid: process.pid, started: 'before' };
  paths = await stoppedInstance(ctx.paths, name, { owner: gone });
  await writeFile(paths.disk, '');
});
afterEach(() => ctx.remove());

/** The reaper's context: `act` happens once it has looked at the machine, just before it takes the machine's lock. */
function actingBeforeTheLock(act: () => void): Context {
  return {
    ...ctx,
    paths: {
      ...ctx.paths,
      lock: (what) => {
        if (what === `instance-${name}`) act();
        return ctx.paths.lock(what);
      },
    },
  };
}

const write = (state: Partial<State>): void =>
  writeFileSync(paths.state, JSON.stringify({ ...newState('qemu'), phase: 'started', ...state }));

describe('a disposable machine', () => {
  it('whose owner is gone is removed', async () => {
    await expect(reap(ctx)).resolves.toEqual([name]);
    expect(existsSync(paths.folder)).toBe(false);
  });

  it('whose owner lives stays', async () => {
    write({ owner: await ownIdentity(ctx.run) });
    await expect(reap(ctx)).resolves.toEqual([]);
    expect(existsSync(paths.disk)).toBe(true);
  });

  it('that was protected stays', async () => {
    await writeFile(paths.protect, '');
    await expect(reap(ctx)).resolves.toEqual([]);
    expect(existsSync(paths.disk)).toBe(true);
  });

  it('that somebody is at stays', async () => {
    const held = await lock(instanceLock(ctx, name), 'it');
    await expect(reap(ctx)).resolves.toEqual([]);
    await held.release();
    expect(existsSync(paths.disk)).toBe(true);
  });
});

describe('a disposable machine stays that, after the reaper has seen it and before it has its lock,', () => {
  it('was kept', async () => {
    await expect(reap(actingBeforeTheLock(() => write({})))).resolves.toEqual([]);
    expect(existsSync(paths.disk)).toBe(true);
  });

  it('was given to another', async () => {
    const owner = await ownIdentity(ctx.run);
    await expect(reap(actingBeforeTheLock(() => write({ owner })))).resolves.toEqual([]);
    expect(existsSync(paths.disk)).toBe(true);
  });

  it('was protected', async () => {
    const protect = (): void => writeFileSync(paths.protect, '');
    await expect(reap(actingBeforeTheLock(protect))).resolves.toEqual([]);
    expect(existsSync(paths.disk)).toBe(true);
  });

  it('was started', async () => {
    const end = await processOf(paths);
    try {
      // It ran before it was seen, and its pid file is there only now.
      const { pid } = paths;
      const text = await readFile(pid, 'utf8');
      writeFileSync(pid, '');
      await expect(reap(actingBeforeTheLock(() => writeFileSync(pid, text)))).resolves.toEqual([]);
      expect(existsSync(paths.disk)).toBe(true);
    } finally {
      await end();
    }
  });
});
