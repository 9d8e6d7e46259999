import { createHash } from 'node:crypto';
import { mkdtemp, open, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { lockOpenFile } from '../../../src/host/lock.ts';
import type { Export } from '../../../src/zvol/messages.ts';
import { receive, type Receiving } from '../../../src/zvol/receive.ts';
import { failureOf } from './support.ts';

const MiB = 2 ** 20;
const never = new AbortController().signal;
const content = Buffer.concat([Buffer.alloc(MiB), Buffer.alloc(1000, 'zfsdev'), Buffer.alloc(5 * MiB)]);
const sha256 = createHash('sha256').update(content).digest('hex');
const end = { offset: 0, data: Buffer.alloc(0), totalBytes: content.length, sha256 };
const first = { ...end, sha256: '' };
const middle = { offset: MiB, data: content.subarray(MiB, MiB + 1000), sha256: '' };
const part = '.disk.raw.zfsdev-part';
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-receive-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function* sent(...messages: readonly Export[]): AsyncGenerator<Export> {
  for (const message of messages) yield await Promise.resolve(message);
}

const into = (more: Partial<Receiving> = {}): Receiving => ({
  what: 'data',
  path: join(folder, 'disk.raw'),
  overwrite: false,
  signal: never,
  progress: () => undefined,
  ...more,
});

it('an export is written sparse, compared, and named', async () => {
  const seen: number[] = [];
  const received = await receive(
    sent(first, middle, end),
    into({ progress: (done) => void seen.push(done) }),
  );
  expect(received).toEqual({ total: content.length, sha256 });
  expect((await readFile(join(folder, 'disk.raw'))).equals(content)).toBe(true);
  expect((await stat(join(folder, 'disk.raw'))).mode & 0o777).toBe(0o600);
  expect((await stat(join(folder, 'disk.raw'))).blocks * 512).toBeLessThan(MiB);
  expect(await readdir(folder)).toEqual(['disk.raw']);
  expect(seen).toEqual([0, MiB + 1000, 0]);
});

it.each([
  [
    'has another checksum',
    [first, { ...middle, data: Buffer.alloc(1000, 'other') }, end],
    'came with the checksum',
  ],
  ['is cut off', [first, middle], 'was cut off'],
  ['comes in disorder', [first, middle, middle, end], 'in disorder'],
  ['has more than it said', [{ ...first, totalBytes: 5 }, middle, end], 'in disorder'],
])('an export that %s leaves nothing', async (_, messages, words) => {
  const { reason, message } = await failureOf(receive(sent(...messages), into()));
  expect({ reason, message }).toMatchObject({
    reason: 'guest',
    message: expect.stringContaining(words) as string,
  });
  expect(await readdir(folder)).toEqual([]);
});

it('an export that is interrupted leaves nothing', async () => {
  const controller = new AbortController();
  async function* messages(): AsyncGenerator<Export> {
    yield* sent(first, middle);
    // As a stream ends that was called off.
    controller.abort();
  }
  expect(await failureOf(receive(messages(), into({ signal: controller.signal })))).toMatchObject({
    reason: 'interrupted',
  });
  expect(await readdir(folder)).toEqual([]);
});

it('a file that is there stays, also one that came meanwhile, unless it may be replaced', async () => {
  const path = join(folder, 'disk.raw');
  async function* late(): AsyncGenerator<Export> {
    yield* sent(first, middle);
    await writeFile(path, 'mine');
    yield* sent(end);
  }
  expect(await failureOf(receive(late(), into()))).toMatchObject({ reason: 'already-exists' });
  expect(await failureOf(receive(sent(first, middle, end), into()))).toMatchObject({
    reason: 'already-exists',
  });
  expect(await readFile(path, 'utf8')).toBe('mine');
  await receive(sent(first, middle, end), into({ overwrite: true }));
  expect((await readFile(path)).equals(content)).toBe(true);
  expect(await readdir(folder)).toEqual(['disk.raw']);
});

it('what a killed zfsdev left is written over, and no other file', async () => {
  await writeFile(join(folder, part), Buffer.alloc(7 * MiB, 'left'));
  await writeFile(join(folder, 'disk.raw.part'), 'mine');
  await receive(sent(first, middle, end), into());
  expect((await readFile(join(folder, 'disk.raw'))).equals(content)).toBe(true);
  expect((await readdir(folder)).sort()).toEqual(['disk.raw', 'disk.raw.part']);
});

it('two that write the same file come one after the other', async () => {
  const other = await open(join(folder, part), 'w', 0o600);
  await lockOpenFile(other, never);
  const second = receive(sent(first, middle, end), into());
  await other.write('the first one’s');
  await rm(join(folder, part));
  await other.close();
  await second;
  expect((await readFile(join(folder, 'disk.raw'))).equals(content)).toBe(true);
});

it('a disk that is full is told with its name', async () => {
  const { reason, message } = await failureOf(
    receive(
      (async function* () {
        yield await Promise.resolve(first);
        throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      })(),
      into(),
    ),
  );
  expect({ reason, message }).toEqual({
    reason: 'no-space',
    message: `there is no room left in ${folder} for disk.raw; nothing of it stays`,
  });
  expect(await readdir(folder)).toEqual([]);
});

it('a folder that is not there is told', async () => {
  const path = join(folder, 'none', 'disk.raw');
  expect(await failureOf(receive(sent(first), into({ path })))).toMatchObject({
    reason: 'not-found',
    message: `there is no folder ${join(folder, 'none')}`,
  });
});
