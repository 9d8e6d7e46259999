import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { ZfsdevEvent } from '../../../src/core/events.ts';
import { Failure } from '../../../src/core/errors.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import type { Builder, Phase, PhaseOptions } from '../../../src/kernel/builder.ts';
import { runPhases, type Facts } from '../../../src/kernel/pipeline.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let folder: string;
let log: string;
let ctx: TestContext;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-pipeline-'));
  log = join(folder, 'log');
  await writeFile(log, '');
  ctx = await testContext({ folder });
});

afterEach(async () => {
  vi.useRealTimers();
  await rm(folder, { recursive: true, force: true });
});

/** A place whose phases end at once, but for what is played. */
function builder(play: (phase: Phase, options: PhaseOptions) => Promise<number>): Builder {
  const never = (): never => {
    throw new Error('not expected');
  };
  return {
    title: 'a place',
    run: play,
    fetch: never,
    used: never,
    remove: never,
    afterwards: ['go on: the same command with --resume'],
    anew: 'begin anew',
  };
}

const run = (place: Builder): Promise<Facts> =>
  runPhases(ctx, place, { log, deadline: deadlineIn(24 * 3_600_000), zfs: true });

const told = (step: string): string[] =>
  ctx.events.flatMap((event: ZfsdevEvent) =>
    event.type === 'step-progress' && event.step === step ? [event.text] : [],
  );

it('shows what a phase is at, and says that it is at work while it says nothing', async () => {
  vi.useFakeTimers();
  const place = builder(async (phase, { onLine }) => {
    if (phase !== 'zfs') return 0;
    onLine('> configuring OpenZFS');
    await vi.advanceTimersByTimeAsync(3 * 60_000 + 100);
    onLine('checking whether something is there... yes');
    await vi.advanceTimersByTimeAsync(50_000);
    return 0;
  });
  await run(place);
  expect(told('zfs')).toEqual([
    'configuring OpenZFS',
    'configuring OpenZFS (nothing was said for 1 min 0 s)',
    'configuring OpenZFS (nothing was said for 2 min 0 s)',
    'configuring OpenZFS (nothing was said for 3 min 0 s)',
    'checking whether something is there... yes',
  ]);
  // Nothing is left that would go on telling.
  const { length } = ctx.events;
  await vi.advanceTimersByTimeAsync(600_000);
  expect(ctx.events).toHaveLength(length);
});

it('keeps the facts of all phases, and passes on what they notice', async () => {
  const place = builder((phase, { onLine }) => {
    if (phase === 'source') onLine('@ notice OpenZFS may be too old');
    if (phase === 'archive') onLine('@ archive kernel-1.tar.zst');
    return Promise.resolve(0);
  });
  expect((await run(place)).get('archive')).toBe('kernel-1.tar.zst');
  expect(ctx.events).toContainEqual({ type: 'notice', level: 'info', text: 'OpenZFS may be too old' });
  expect(await readFile(log, 'utf8')).toMatch(/^--- preflight \(\S+\)\n--- source /);
});

it.each([
  ['', false, 10, 'info'],
  [', and OpenZFS afterwards may take as long again', true, 10, 'info'],
  [
    ', and OpenZFS afterwards may take as long again, longer than --timeout lets it: a build that is cut off goes on with --resume',
    true,
    0.5,
    'warning',
  ],
])('tells before the long part how long it may be%s', async (words, zfs, hours, level) => {
  const place = builder((phase, { onLine }) => {
    if (phase === 'preflight') onLine('@ jobs 2');
    if (phase === 'config') ['@ cost 2000', '@ options 800'].forEach(onLine);
    return Promise.resolve(0);
  });
  await runPhases(ctx, place, { log, deadline: deadlineIn(hours * 3_600_000), zfs });
  const text = expect.stringMatching(
    /^about 1400 objects are to be compiled, which takes about [\d.]+ (min|hours) here/,
  ) as string;
  expect(ctx.events).toContainEqual({ type: 'notice', level, text });
  const told = ctx.events.flatMap((event) => (event.type === 'notice' ? [event.text] : []));
  expect(told[0]?.endsWith(`here${words}`)).toBe(true);
});

it('tells another time for a place whose processors are emulated', async () => {
  const place = builder((phase, { onLine }) => {
    if (phase === 'preflight') onLine('@ jobs 2');
    if (phase === 'config') ['@ cost 2000', '@ options 800'].forEach(onLine);
    return Promise.resolve(0);
  });
  await run(place);
  await run({ ...place, emulated: true });
  const [real, emulated, ...more] = ctx.events.flatMap((event) =>
    event.type === 'notice' ? [event.text] : [],
  );
  expect(emulated).toMatch(/^about 1400 objects/);
  expect(emulated).not.toBe(real);
  expect(more).toEqual([]);
});

it('tells of a place that was lost where the log is, and how to go on', async () => {
  const lost = new Failure('guest', 'the machine has given no sign of life for half an hour', {
    hint: 'zfsdev restart --force it',
  });
  const place = builder((phase) => (phase === 'make' ? Promise.reject(lost) : Promise.resolve(0)));
  await expect(run(place)).rejects.toMatchObject({
    reason: 'guest',
    message: 'the build ended in the phase make: the machine has given no sign of life for half an hour',
    detail: `the whole log: ${log}`,
    hint: 'zfsdev restart --force it\ngo on: the same command with --resume',
  });
});

it('ends with words of its own when its log can not be written', async () => {
  await rm(log);
  log = join(folder, 'no such folder', 'log');
  await expect(run(builder(() => Promise.resolve(0)))).rejects.toMatchObject({
    reason: 'files',
    message: expect.stringContaining("the log of the build can't be written") as string,
  });
});

it('tells the release before anything is compiled, and ends if it may not have it', async () => {
  const begun: Phase[] = [];
  const place = builder((phase, { onLine }) => {
    begun.push(phase);
    if (phase === 'config') onLine('@ release 6.12-zfsdev');
    return Promise.resolve(0);
  });
  const onRelease = (release: string): void => {
    throw new Failure('already-exists', release);
  };
  const running = runPhases(ctx, place, { log, deadline: deadlineIn(1000), zfs: true, onRelease });
  await expect(running).rejects.toMatchObject({ reason: 'already-exists', message: '6.12-zfsdev' });
  expect(begun).toEqual(['preflight', 'source', 'config']);
});
