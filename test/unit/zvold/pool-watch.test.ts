import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { PoolWatch } from '../../../src/zvold/pool-watch.ts';
import { Recovery } from '../../../src/zvold/recovery.ts';
import { FakeZfs } from '../../fakes/zfs.ts';

let fake: FakeZfs;
let watch: PoolWatch;

beforeEach(() => {
  vi.useFakeTimers();
  fake = new FakeZfs();
  watch = new PoolWatch(fake.machine, fake.pool);
});

afterEach(() => {
  watch.close();
  vi.useRealTimers();
});

describe('whether a pool can be asked', () => {
  it.each([
    ['ONLINE', true],
    ['DEGRADED', true],
    ['SUSPENDED', false],
    ['FAULTED', false],
    [undefined, false],
  ])('is, for %s, %s', async (state, usable) => {
    fake.state = state;
    expect(await watch.look()).toBe(usable);
    if (usable) await watch.require();
    else await expect(watch.require()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('is told at once, and again whenever it changes, to one who watches', async () => {
    const stop = new AbortController();
    const changes = watch.changes(stop.signal);
    expect((await changes.next()).value).toBe(true);
    for (const [state, usable] of [
      ['SUSPENDED', false],
      ['ONLINE', true],
      [undefined, false],
    ] as const) {
      const next = changes.next();
      fake.state = state;
      await vi.advanceTimersByTimeAsync(1_500);
      expect((await next).value).toBe(usable);
    }
    const last = changes.next();
    stop.abort();
    expect((await last).done).toBe(true);
  });

  it('is seen by a request before anybody would have looked', async () => {
    const heard: boolean[] = [];
    watch.listen((usable) => heard.push(usable));
    await watch.look();
    fake.state = undefined;
    await expect(watch.require()).rejects.toThrow('not imported');
    fake.state = 'ONLINE';
    await watch.require();
    expect(heard).toEqual([false, true]);
  });
});

describe('recovery', () => {
  const reports: string[] = [];
  let outcomes: ((tell: (words: string) => void) => Promise<void>)[];
  let count = 0;
  const imports = {
    recover: (tell: (words: string) => void) => {
      count += 1;
      return (outcomes.shift() ?? (() => Promise.resolve()))(tell);
    },
  };

  beforeEach(() => {
    reports.length = 0;
    outcomes = [];
    count = 0;
  });

  async function settled(recovery: Recovery): Promise<void> {
    await vi.advanceTimersByTimeAsync(0);
    await recovery.settled();
  }

  it('is done at the start, and says what it did', async () => {
    outcomes = [(tell) => Promise.resolve(tell('the unfinished x was destroyed'))];
    const recovery = new Recovery([imports], watch, (words) => reports.push(words));
    recovery.begin();
    await settled(recovery);
    expect(reports).toEqual(['the unfinished x was destroyed']);
    recovery.end();
  });

  it('waits for a pool that is away, and is done again each time that it comes back', async () => {
    fake.state = undefined;
    outcomes = [() => Promise.reject(new ZvolError('UNAVAILABLE', 'not imported'))];
    const recovery = new Recovery([imports], watch, (words) => reports.push(words));
    recovery.begin();
    await settled(recovery);
    expect(count).toBe(1);
    // However long it is away.
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(count).toBe(1);
    fake.state = 'ONLINE';
    await vi.advanceTimersByTimeAsync(31_000);
    expect(count).toBe(2);
    fake.state = 'SUSPENDED';
    await vi.advanceTimersByTimeAsync(31_000);
    fake.state = 'ONLINE';
    await vi.advanceTimersByTimeAsync(31_000);
    expect(count).toBe(3);
    expect(reports).toEqual([]);
    recovery.end();
  });

  it('that fails with the pool there is tried a few times, and then reported', async () => {
    outcomes = Array.from(
      { length: 10 },
      () => () => Promise.reject(new ZvolError('UNAVAILABLE', 'zfs can not be started')),
    );
    const recovery = new Recovery([imports], watch, (words) => reports.push(words));
    recovery.begin();
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(count).toBe(6);
    expect(reports).toEqual(['what an earlier run left could not be tidied up: zfs can not be started']);
    recovery.end();
  });

  it('that fails with one of them is done with the others, and with it once only', async () => {
    outcomes = [() => Promise.reject(new ZvolError('FAILED_PRECONDITION', 'dataset is busy'))];
    const recovery = new Recovery([imports, imports], watch, (words) => reports.push(words));
    recovery.begin();
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(count).toBe(2);
    expect(reports).toEqual(['what an earlier run left could not be tidied up: dataset is busy']);
    recovery.end();
  });
});
