import { mkdir, readFile, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unfinishedFile } from '../../../src/host/paths.ts';
import { makeWholeFile, notMade, putInFreePlace, sweepUnfinished } from '../../../src/host/whole-file.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
beforeEach(async () => {
  ctx = await testContext();
  await mkdir(at('out'));
});
afterEach(() => ctx.remove());

const at = (...names: string[]): string => join(ctx.folder, ...names);
const held = (): Promise<string[]> => readdir(at('out')).then((names) => names.sort());
const text = (name: string): Promise<string> => readFile(at('out', name), 'utf8');

/** As `link` on a file system that has no hard links. */
const noLinks = (): Promise<never> =>
  Promise.reject(Object.assign(new Error('operation not permitted'), { code: 'EPERM' }));

describe.each([
  ['with hard links', undefined],
  ['without hard links', noLinks],
])('a finished file, on a file system %s,', (_, link) => {
  const file = (): string => at('out', 'new');
  const place = (): string => at('out', 'place');
  beforeEach(() => writeFile(file(), 'whole', { mode: 0o600 }));

  it('gets its name, and no other one', async () => {
    await putInFreePlace(file(), place(), link);
    expect(await held()).toEqual(['place']);
    expect(await text('place')).toBe('whole');
    expect((await stat(place())).mode & 0o777).toBe(0o600);
  });

  it.each([
    ['a file', () => writeFile(place(), 'mine')],
    ['an empty file', () => writeFile(place(), '')],
    ['a folder', () => mkdir(place())],
    ['a link that leads nowhere', () => symlink(at('nowhere'), place())],
    ['a link to a file', () => writeFile(at('mine'), 'mine').then(() => symlink(at('mine'), place()))],
  ])('never takes the place of %s', async (__, make) => {
    await make();
    const before = await stat(place()).catch(() => undefined);
    await expect(putInFreePlace(file(), place(), link)).rejects.toMatchObject({
      reason: 'already-exists',
      hint: expect.stringContaining('ls -l') as string,
    });
    expect(await stat(place()).catch(() => undefined)).toEqual(before);
    expect(await held()).toEqual(['new', 'place']);
    expect(await text('new')).toBe('whole');
  });

  it('keeps its old name if it can not be put there', async () => {
    await expect(putInFreePlace(file(), at('out', 'no', 'place'), link)).rejects.toMatchObject({
      code: 'ENOENT',
    });
    expect(await held()).toEqual(['new']);
  });

  it('that is gone leaves nothing in its place', async () => {
    await expect(putInFreePlace(at('out', 'gone'), place(), link)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await held()).toEqual(['new']);
  });
});

it('a file that appears while links turn out to be missing stays as it is', async () => {
  await writeFile(at('out', 'new'), 'whole');
  const place = at('out', 'place');
  const late = (): Promise<never> => writeFile(place, 'mine').then(noLinks);
  await expect(putInFreePlace(at('out', 'new'), place, late)).rejects.toMatchObject({
    reason: 'already-exists',
  });
  expect([await text('place'), await text('new')]).toEqual(['mine', 'whole']);
});

describe('a file that is made', () => {
  const make = (path: string, fill: (file: string) => Promise<void>, waits = false): Promise<string> =>
    makeWholeFile(ctx, path, { fill, waits });

  it('is its owner’s alone, and only seen once it is whole', async () => {
    await make(at('out', 'a'), async (file) => {
      expect(dirname(file)).toBe(at('out'));
      expect(await held()).not.toContain('a');
      await writeFile(file, 'whole');
    });
    expect(await held()).toEqual(['a']);
    expect((await stat(at('out', 'a'))).mode & 0o777).toBe(0o600);
  });

  it('is refused before it is filled where there is something, also a link that leads nowhere', async () => {
    await symlink(at('nowhere'), at('out', 'a'));
    const filled = make(at('out', 'a'), () => Promise.reject(new Error('it was filled')));
    await expect(filled).rejects.toMatchObject({ reason: 'already-exists' });
    expect(await held()).toEqual(['a']);
  });

  it('leaves what appeared meanwhile, and nothing of its own', async () => {
    const made = make(at('out', 'a'), async (file) => {
      await writeFile(file, 'whole');
      await writeFile(at('out', 'a'), 'mine');
    });
    await expect(made).rejects.toMatchObject({ reason: 'already-exists' });
    expect(await held()).toEqual(['a']);
    expect(await text('a')).toBe('mine');
  });

  it('has one maker, whatever names lead to its folder: half of one is never taken for the other', async () => {
    await symlink(at('out'), at('way'));
    const outcome: Promise<unknown>[] = [];
    await make(at('out', 'a'), async (file) => {
      await writeFile(file, 'first');
      const second = make(at('way', 'a'), (other) => writeFile(other, 'sec'));
      await expect(second).rejects.toMatchObject({ reason: 'locked' });
      // One that waits sees what the first one made.
      outcome.push(
        make(at('way', 'a'), (other) => writeFile(other, 'third'), true).catch((error: unknown) => error),
      );
    });
    expect(await outcome[0]).toMatchObject({ reason: 'already-exists' });
    expect(await text('a')).toBe('first');
    expect(await held()).toEqual(['a']);
  });

  it('leaves nothing when it fails, and clears away what a killed maker left', async () => {
    await writeFile(unfinishedFile(at('out', 'a')), 'left');
    const failed = make(at('out', 'a'), async (file) => {
      expect(await readFile(file, 'utf8')).toBe('');
      throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
    });
    const error = await failed.catch((thrown: unknown) => thrown);
    expect(notMade('it', at('out'), error)).toMatchObject({ reason: 'no-space' });
    expect(await held()).toEqual([]);
    for (const name of ['a', 'b']) await writeFile(unfinishedFile(at('out', name)), 'left');
    await make(at('out', 'a'), async () => {
      await sweepUnfinished(ctx, [at('out', 'a'), at('out', 'b')]);
      // Whoever is at one goes on.
      expect(await held()).toHaveLength(1);
    });
    expect(await held()).toEqual(['a']);
  });

  it('may have as long a name as there can be', async () => {
    const name = 'ü'.repeat(127);
    await make(at('out', name), (file) => writeFile(file, 'whole'));
    expect(await held()).toEqual([name]);
  });
});
