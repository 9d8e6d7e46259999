import { appendFile, mkdir, open, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  historyBound,
  lineOf,
  readHistory,
  recordSample,
  type Sample,
} from '../../../src/storage/history.ts';
import { lockOpenFile } from '../../../src/host/lock.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
let file: string;

beforeEach(async () => {
  ctx = await testContext();
  file = ctx.paths.usageHistory;
});
afterEach(() => ctx.remove());

function sample(at: number, names: readonly string[] = ['a']): Sample {
  return {
    at,
    scope: 'own',
    machines: names.map((name) => ({ name, driver: 'qemu', actual: at, virtual: 2 ** 32 })),
    shared: [{ what: 'image', key: 'f00', actual: 7 }],
    filesystems: [{ path: '/', free: 1, total: 2 }],
    total: at + 7,
  };
}

it('keeps samples as they are, in a file that is the owner’s alone', async () => {
  await recordSample(ctx, sample(1));
  await recordSample(ctx, sample(2, ['a', 'b']));
  expect(await readHistory(file)).toEqual([sample(1), sample(2, ['a', 'b'])]);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
});

it('remembers who looks after a machine of Lima', async () => {
  const [own] = sample(1).machines.map((machine) => ({ ...machine, driver: 'lima' as const }));
  const both = { ...sample(1), machines: own ? [own, { ...own, foreign: true as const }] : [] };
  await recordSample(ctx, both);
  expect(await readHistory(file)).toEqual([both]);
});

it('leaves nothing behind where there is nothing to look at', async () => {
  await recordSample(ctx, { ...sample(1), machines: [], shared: [] });
  await expect(stat(ctx.paths.home)).rejects.toThrow('ENOENT');
});

it('passes over what is damaged, and goes on behind a line that was cut off', async () => {
  await recordSample(ctx, sample(1));
  const rows = '"f":[],"total":0}';
  await appendFile(
    file,
    `\u0000\n[]\nnull\n{"at":-1}\n{"at":3,"scope":"own","m":[[1]],"s":[],${rows}\n{"at":2,"sco`,
  );
  await recordSample(ctx, sample(4));
  expect((await readHistory(file)).map(({ at }) => at)).toEqual([1, 4]);
});

it('loses no sample of many at once', async () => {
  await Promise.all(Array.from({ length: 12 }, (_, i) => recordSample(ctx, sample(i + 1))));
  expect((await readHistory(file)).map(({ at }) => at)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
});

it('loses none to one who trims it meanwhile', async () => {
  const now = Date.now();
  const filler = `${'x'.repeat(historyBound)}\n`;
  await mkdir(ctx.paths.home, { recursive: true });
  await writeFile(file, filler);
  await Promise.all(Array.from({ length: 12 }, (_, i) => recordSample(ctx, sample(now + i))));
  expect((await readHistory(file)).map(({ at }) => at - now)).toEqual(
    Array.from({ length: 12 }, (_, i) => i),
  );
});

it('is thinned out when it has grown too large, the newest kept whole', async () => {
  const now = Date.now();
  const names = Array.from({ length: 50 }, (_, i) => `machine-${i}`);
  await mkdir(ctx.paths.home, { recursive: true });
  const old = Array.from({ length: 500 }, (_, i) => sample(now - (500 - i) * 20_000, names));
  await writeFile(file, old.map((each) => `${lineOf(each)}\n`).join(''));
  expect((await stat(file)).size).toBeGreaterThan(historyBound);
  await recordSample(ctx, sample(now, names));
  expect((await stat(file)).size).toBeLessThanOrEqual(historyBound / 2);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const left = (await readHistory(file)).map(({ at }) => at);
  expect(left.slice(-10)).toEqual([...old.slice(-9).map(({ at }) => at), now]);
});

it.each<[string, () => Promise<unknown>]>([
  ['a state home that can not be written', () => symlink('/proc/self', ctx.paths.home)],
  ['a folder in its place', () => mkdir(file, { recursive: true })],
  [
    'a link in its place, which is not followed',
    async () => {
      await mkdir(ctx.paths.home, { recursive: true });
      await symlink(join(ctx.folder, 'elsewhere'), file);
    },
  ],
])('%s does not fail a look', async (_, make) => {
  await make();
  await recordSample(ctx, sample(1));
  await expect(readFile(join(ctx.folder, 'elsewhere'))).rejects.toThrow('ENOENT');
});

it('does not wait for one who holds its lock and stands still', async () => {
  await recordSample(ctx, sample(1));
  const held = await open(file, 'r+');
  await lockOpenFile(held, ctx.signal);
  await recordSample(ctx, sample(2));
  await held.close();
  expect(await readHistory(file)).toEqual([sample(1)]);
});
